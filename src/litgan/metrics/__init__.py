"""Realism as numbers: feature extractors, distances between clouds of features, and the evaluation."""

from litgan.metrics.distances import (
    Moments,
    density_coverage,
    frechet_distance,
    frechet_from_moments,
    kernel_distance,
    prdc,
    precision_recall,
)
from litgan.metrics.evaluate import Report, evaluate
from litgan.metrics.extractors import Classifier, FeatureExtractor, Inception, load_extractor

__all__ = [
    "Classifier",
    "FeatureExtractor",
    "Inception",
    "Moments",
    "Report",
    "density_coverage",
    "evaluate",
    "frechet_distance",
    "frechet_from_moments",
    "kernel_distance",
    "load_extractor",
    "prdc",
    "precision_recall",
]
