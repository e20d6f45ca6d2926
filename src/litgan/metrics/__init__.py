"""Metrics: feature extractors, distances between sets of features, and the evaluation of a generator."""

from litgan.metrics.distances import density_coverage, frechet_distance, kernel_distance, precision_recall
from litgan.metrics.evaluate import Report, evaluate
from litgan.metrics.extractors import Classifier, Embedded, FeatureExtractor, Inception, load_extractor
from litgan.metrics.lpips import LPIPS

__all__ = [
    "LPIPS",
    "Classifier",
    "Embedded",
    "FeatureExtractor",
    "Inception",
    "Report",
    "density_coverage",
    "evaluate",
    "frechet_distance",
    "kernel_distance",
    "load_extractor",
    "precision_recall",
]
