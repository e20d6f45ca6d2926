"""The check of a device: is litgan right on it, does nothing make it wait, and how fast is it?

    python benchmarks/gpu.py --section parity --section waits --section resume --section precision \\
        --section evaluation --section learning
    python benchmarks/gpu.py --section speed --section compile

are the whole check, in two commands, each of which stops by itself after 240 seconds and says what it has not
reached; `--device cpu --quick` shows that it runs. It needs torch and what litgan imports: no account, no
download, no data but what litgan makes. Each answer is a line, printed as soon as it is known. The exit code
is 1 if an answer is wrong; speed and memory are reported and never judged.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from dataclasses import asdict
from typing import Any

BEGAN = time.perf_counter()
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts; for deterministic runs

import measure  # noqa: E402
import torch  # noqa: E402
from device_checks import (  # noqa: E402
    Answer,
    Device,
    Section,
    compiled,
    evaluation,
    learning,
    parity,
    precision,
    resume,
    waits,
)
from device_speed import speed  # noqa: E402

from litgan.cli import silence_warnings  # noqa: E402

SECTIONS: dict[str, Section] = {
    "parity": parity, "waits": waits, "resume": resume, "precision": precision, "evaluation": evaluation,
    "learning": learning, "speed": speed, "compile": compiled,
}  # fmt: skip
DEVICES = {
    "cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True,
}  # fmt: skip


class OutOfTime(BaseException):  # not an Exception: nobody shall handle it on its way
    """The seconds are over."""


def stop_after(seconds: float) -> None:
    """Raises OutOfTime so many seconds after the start of this process, wherever it then is.

    Again every second: what is raised in a destructor is lost.
    """

    def stop(*_: Any) -> None:
        raise OutOfTime

    if hasattr(signal, "SIGALRM"):  # Windows has none
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(0.001, seconds - (time.perf_counter() - BEGAN)), 1)


def go_on() -> None:
    """Undoes `stop_after`."""
    if hasattr(signal, "SIGALRM"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def ask(sections: list[str], device: Device, seconds: float) -> list[dict[str, Any]]:
    """Prints and returns all answers; says which sections were not reached in time."""
    answers: list[dict[str, Any]] = []
    waiting, asked = list(sections), ""
    try:
        stop_after(seconds)
        while waiting:
            for asked, answer in SECTIONS[waiting[0]](device):
                try:
                    found = answer()
                except Exception as error:
                    reason = (str(error).splitlines() or [""])[0][:300]
                    found = Answer(f"{type(error).__name__}: {reason}", wrong=True)
                clean_up()
                answers.append({"section": waiting[0], "asked": asked, **asdict(found)})
                verdict = "WRONG" if found.wrong else ""
                line = (
                    f"{time.perf_counter() - BEGAN:4.0f} s  {waiting[0]}: {asked}: {found.found}  {verdict}"
                )
                print(line.rstrip(), flush=True)
            waiting.pop(0)
    except OutOfTime:
        go_on()
        late = ", ".join(waiting[1:]) or "none"
        print(f"Stopped after {seconds:g} s in {waiting[0]}, during {asked!r}; sections not reached: {late}.")
    finally:
        go_on()
    return answers


def clean_up() -> None:
    """Forgets networks and compiled code."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> None:
    parser = measure.options(__doc__, __file__)
    help_ = "repeatable; by default all: " + ", ".join(SECTIONS)
    parser.add_argument("--section", action="append", choices=SECTIONS, metavar="NAME", help=help_)
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--seconds", type=float, default=240, help="after which it stops")
    options = parser.parse_args()
    if not DEVICES[options.device]():
        sys.exit(f"There is no {options.device} device here: give another --device, or another machine.")
    measure.setup(options)
    silence_warnings()
    answers = ask(options.section or list(SECTIONS), Device(options.device, options.quick), options.seconds)
    measure.write(options, {"answers": answers})
    wrong = sum(answer["wrong"] for answer in answers)
    print(f"{len(answers)} answers, {wrong} wrong.")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
