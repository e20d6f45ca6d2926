"""The `litgan` command: one table of verbs."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from litgan import __version__
from litgan.recipe_files import find_recipes
from litgan.seeds import end_with_parent, fit_seeds, take_seeds

USAGE = """litgan: adversarial training with PyTorch Lightning

  litgan fit       --config configs/digits.yaml   train, or resume with --ckpt_path last
  litgan validate  --config RECIPE --ckpt_path C  measure a checkpoint with the recipe's Trainer
  litgan sample    CKPT --count 64 --out DIR      draw from a checkpoint
  litgan evaluate  CKPT --count 10000             distances to the data, as JSON
  litgan interpolate CKPT --out loop.gif          a walk through the latents
  litgan export    CKPT --format onnx --out PATH  the generator alone, also as safetensors
  litgan report    RUN_DIR                        a run as one web page: curves, grids over time, events
  litgan pack      FOLDER OUT --data.resolution 64  a data set as arrays that processes share
{lab}{new}
`litgan VERB --help` lists the options of a verb."""
LAB = "  litgan lab       [--short] --out DIR            experiments on the feedback itself\n"
NEW = "  litgan new       DIR --name mygan [--wings ...] a project of your own, renamed and stripped\n"


def main(arguments: list[str] | None = None) -> None:
    """Runs one verb; bad input ends with one sentence on stderr and exit code 1 (2: bad command line).

    A `fit` that is stopped early saves a checkpoint, from which `--ckpt_path last` resumes, and ends with 75
    (Ctrl-C: 130).
    """
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help"):
        print(USAGE.format(lab=LAB if "lab" in VERBS else "", new=NEW if "new" in VERBS else ""))
        return
    if verb == "--version":
        print(f"litgan {__version__}")
        return
    try:
        if verb not in VERBS:
            raise ValueError(f"there is no verb {verb}: use one of {', '.join(VERBS)}.")
        if verb in ("fit", "validate"):
            rest = find_recipes(rest)
    except ValueError as error:
        print(f"litgan: error: {error}", file=sys.stderr)
        sys.exit(2)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's agent may be killed
        end_with_parent()
    try:
        silence_warnings()
        VERBS[verb](rest)
    except argparse.ArgumentError as error:
        print(f"litgan: error: {one_line(str(error))} (see litgan {verb} --help)", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(cancelled())
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # of which Lightning makes 1
            sys.exit(cancelled())
        raise
    except Exception as error:
        from litgan.rebuild import find_sentence

        own = find_sentence(error) or without_metal_kernel(error)
        if own is None or "LITGAN_TRACEBACK" in os.environ:
            traceback.print_exc()
        print(f"litgan: error: {own or error}", file=sys.stderr)
        sys.exit(1)


def without_metal_kernel(error: Exception) -> str | None:
    """A sentence, if it is what PyTorch raises for an operation that it lacks on Apple's GPUs."""
    found = re.search(r"'(aten::[\w.]+)' is not currently implemented for the MPS device", str(error))
    if found is None:
        return None
    return (
        f"PyTorch has no Metal kernel of {found[1]}: set PYTORCH_ENABLE_MPS_FALLBACK=1 in the environment, "
        "which takes the CPU for it, or give --trainer.accelerator cpu."
    )


def cancelled() -> int:
    """The exit code after Ctrl-C; 0 in a process that Lightning launched, which kills all after another."""
    # `python -m` ends by the signal if the last run string was interrupted, caught or not: run another one.
    exec("")
    return 0 if "TORCHELASTIC_RUN_ID" not in os.environ and os.environ.get("LOCAL_RANK", "0") != "0" else 130


AROUND = re.compile(  # what jsonargparse prints around its reasons: parsers, types, dumps of values
    r"""Parser key "[\w.]+":|Type .*callable class:|Problem with given class_path '[\w.]+':|Errors:"""
    r"|Subtypes:.*|Subclass types expect.*|^[\s-]*a (?:class path \(str\)|dict with).*"
    r"|Does not validate against.*|Expected a path but.*|Expected a <class 'NoneType'>"
    r"|Given value type:.*|Given value: \w*[({\[].*|Got value: Namespace.*"
)


def one_line(error: str) -> str:
    """What jsonargparse prints over many lines, as "key (class): reasons"."""
    key = ".".join(dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', error)))
    classes = re.findall(r"(?:given class_path |Got value: Namespace\(class_path=)'([\w.]+)'", error)
    reasons = [AROUND.sub("", line).strip(" .-") for line in error.splitlines()]
    place = f"{key} ({classes[-1]})" if classes else key
    return ": ".join(filter(None, [place, "; ".join(dict.fromkeys(filter(None, reasons)))])) or repr(error)


def silence_warnings() -> None:
    """Silences what Lightning and torch print at every start and what needs no action."""
    import lightning.pytorch  # noqa: F401  # sets the levels of both loggers when it is imported

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)


HARMLESS = (
    ".*LeafSpec.* is deprecated",  # inside Lightning
    "The number of training batches .* is smaller than the logging interval",  # we log by the run
    "Total length of .* across ranks is zero",  # there is no validation in the middle of a fit
    "Found .* module.* in eval mode",  # the generator's average
    "Grad strides do not match bucket view strides",  # DDP, of one-channel convolutions in channels_last
    "You're resuming from a checkpoint that ended before the epoch",  # our loaders follow the run's clock
)


def fit(arguments: list[str]) -> None:
    seeds, arguments = take_seeds(arguments)
    if seeds:
        sys.exit(fit_seeds(seeds, arguments))
    from litgan.recipe import Recipe
    from litgan.summary import print_header, print_summary

    recipe = Recipe(arguments)
    with recipe.run_context():
        print_header(recipe)
        recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule, ckpt_path=recipe.ckpt_path)
        print_summary(recipe)


def validate(arguments: list[str]) -> None:
    from litgan.recipe import Recipe

    recipe = Recipe(arguments, "validate")
    with recipe.run_context():
        recipe.trainer.validate(recipe.model, datamodule=recipe.datamodule, ckpt_path=recipe.ckpt_path)


def command(name: str, module: str = "commands") -> Callable[[list[str]], None]:
    """The verb that is a typed function of a module: its signature is the command line."""

    def run(arguments: list[str]) -> None:
        import jsonargparse

        function: Any = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        parser = jsonargparse.ArgumentParser(prog=f"litgan {name}", exit_on_error=False)
        parser.add_function_arguments(function, as_positional=True)
        flags = {n for n, p in inspect.signature(function).parameters.items() if p.default is False}
        parsed = parser.instantiate(parser.parse_args(normalize(arguments, flags)))
        function(**parsed.as_dict())

    return run


def normalize(arguments: list[str], flags: set[str]) -> list[str]:
    """For the parser `--raw-weights` becomes `--raw_weights=true`, `--trust a --trust b` `--trust=a,b`."""
    repeatable = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    repeatable.add_argument("--trust", action="append")
    given, others = repeatable.parse_known_args(arguments)
    words = [f"--trust={','.join(given.trust)}"] if given.trust else []
    for argument in others:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = name.replace("-", "_").replace("__", "--", 1)
            argument = f"{name}=true" if name[2:] in flags and not equals else f"{name}{equals}{value}"
        words.append(argument)
    return words


VERBS: dict[str, Callable[[list[str]], None]] = {
    "fit": fit,
    "validate": validate,
    "sample": command("sample"),
    "evaluate": command("evaluate"),
    "interpolate": command("interpolate"),
    "export": command("export"),
    "report": command("report"),
    "pack": command("pack"),
}
for wing in ("lab", "new"):  # a project may have deleted them
    if importlib.util.find_spec(f"{__package__}.{wing}"):
        VERBS[wing] = command(wing, wing)
