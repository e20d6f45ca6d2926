"""The `litgan` command: one table of verbs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

USAGE = """litgan: adversarial training with PyTorch Lightning

  litgan fit       --config configs/digits.yaml   train, or resume with --ckpt_path last
  litgan validate  --config RECIPE --ckpt_path C  measure a checkpoint with the recipe's Trainer
  litgan sample    CKPT --count 64 --out DIR      draw from a checkpoint
  litgan evaluate  CKPT --count 10000             distances to the data, as JSON
  litgan interpolate CKPT --out loop.gif          a walk through the latents
  litgan export    CKPT --format onnx --out PATH  the generator alone, also as safetensors
  litgan report    RUN_DIR                        a run as one web page: curves, grids over time, verdicts
{lab}{new}
`litgan VERB --help` tells all options of a verb."""
LAB = "  litgan lab       [--short] --out DIR            experiments on the feedback itself\n"
NEW = "  litgan new       DIR --name mygan [--wings ...] a project of your own, renamed and stripped\n"


def main(arguments: list[str] | None = None) -> None:
    """Runs one verb; bad input ends with one sentence on stderr and exit code 1 (2: bad command line).

    A `fit` that was stopped before its end, saved, ends with 75, after Ctrl-C with 130: `--ckpt_path last`
    goes on with it.
    """
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help"):
        print(USAGE.format(lab=LAB if "lab" in VERBS else "", new=NEW if "new" in VERBS else ""))
        return
    if verb not in VERBS:
        print(f"litgan: error: there is no verb {verb}: use one of {', '.join(VERBS)}.", file=sys.stderr)
        sys.exit(2)
    from jsonargparse import ArgumentError

    quieten()
    try:
        VERBS[verb](rest)
    except ArgumentError as error:
        print(f"litgan: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # of which Lightning makes 1
            sys.exit(130)
        raise
    except Exception as error:
        own = raised_by_litgan(error)
        if own is None or "LITGAN_TRACEBACK" in os.environ:
            traceback.print_exc()
        print(f"litgan: error: {own or error}", file=sys.stderr)
        sys.exit(1)


def raised_by_litgan(error: BaseException | None) -> BaseException | None:
    """The error, or the one it was made of, that litgan itself raised: its sentence says all.

    Anything else is a surprise, and its traceback is needed.
    """
    while error is not None:
        frames = list(traceback.walk_tb(error.__traceback__))
        if frames and str(frames[-1][0].f_globals.get("__name__", "")).startswith("litgan."):
            return error
        error = error.__cause__ or error.__context__
    return None


def quieten() -> None:
    """Silences what is said to every user of Lightning at every start and helps nobody."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)


NOISE = (
    ".*LeafSpec.* is deprecated",  # inside Lightning
    "The number of training batches .* is smaller than the logging interval",  # we log by the run
    "Total length of .* across ranks is zero",  # there is no validation in the middle of a fit
    "Found .* module.* in eval mode",  # the generator's average
    "Grad strides do not match bucket view strides",  # DDP, of one-channel convolutions in channels_last
    "You're resuming from a checkpoint that ended before the epoch",  # our loaders follow the run's clock
)


def fit(arguments: list[str]) -> None:
    from litgan.callbacks import Interrupted
    from litgan.files import ignore_disk_errors
    from litgan.recipe import Recipe
    from litgan.summary import introduce, summarise

    recipe = Recipe(arguments)
    with recipe.running():
        if recipe.trainer.is_global_zero:
            print(introduce(recipe.trainer, recipe.model, recipe.folder.path), flush=True)
        try:
            recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule, ckpt_path=recipe.ckpt_path)
        except Interrupted as stop:
            if recipe.trainer.is_global_zero:
                print(f"\n{stop}", flush=True)
            raise
        if recipe.trainer.is_global_zero:
            with ignore_disk_errors("The picture of the curves"):
                print(summarise(recipe.trainer, recipe.folder.path))


def validate(arguments: list[str]) -> None:
    from litgan.recipe import Recipe

    recipe = Recipe(arguments, "validate")
    with recipe.running():
        recipe.trainer.validate(recipe.model, datamodule=recipe.datamodule, ckpt_path=recipe.ckpt_path)


def command(name: str, module: str = "commands") -> Callable[[list[str]], None]:
    """The verb that is a typed function of a module: its signature is the command line."""

    def run(arguments: list[str]) -> None:
        import jsonargparse

        from litgan.messages import explain

        function: Any = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        flags = {n for n, p in inspect.signature(function).parameters.items() if p.default is False}
        purpose = str(function.__doc__).split("\n")[0]
        parser = jsonargparse.ArgumentParser(prog=f"litgan {name}", description=purpose, exit_on_error=False)
        parser.add_function_arguments(function, as_positional=True)
        parser._action_groups[-1].title = "arguments"  # not the purpose once more
        try:
            words = join_repeated([normalise(argument, flags) for argument in arguments], "--trust")
            parsed = parser.parse_args(words)
        except jsonargparse.ArgumentError as error:
            known = inspect.signature(function).parameters
            raise jsonargparse.ArgumentError(None, explain(str(error), known)) from error
        function(**parsed.as_dict())

    return run


def normalise(argument: str, flags: set[str]) -> str:
    """`--raw-weights` is `--raw_weights=true` to the parser."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    name = name.replace("-", "_")
    return f"--{name}=true" if name in flags and not equals else f"--{name}{equals}{value}"


def join_repeated(arguments: list[str], option: str) -> list[str]:
    """`--trust a --trust b` is `--trust=a,b` to the parser, for which the last one alone would count."""
    others, values, words = [], [], iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name == option:
            values.append(value if equals else next(words, ""))
        else:
            others.append(word)
    return [*others, f"{option}={','.join(values)}"] if values else others


VERBS: dict[str, Callable[[list[str]], None]] = {
    "fit": fit,
    "validate": validate,
    "sample": command("sample"),
    "evaluate": command("evaluate"),
    "interpolate": command("interpolate"),
    "export": command("export"),
    "report": command("report"),
}
for wing in ("lab", "new"):  # a project may have deleted them
    if importlib.util.find_spec(f"{__package__}.{wing}"):
        VERBS[wing] = command(wing, wing)
