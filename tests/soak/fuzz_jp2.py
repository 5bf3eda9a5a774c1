"""A coverage-guided fuzzer on what reads JPEG 2000.

    pip install atheris
    python -m tests.soak.fuzz_jp2 [CORPUS_DIR] [-max_total_time=60] [other options of libFuzzer]

It starts from `fixtures/jp2/` where no corpus is given. Every input must give a layout that keeps its promises, or a
typed error, out of few questions; what it does with one is what `tests/formats/test_jp2_faults.py` does.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile


def main() -> None:
    """Fuzz until libFuzzer has had enough."""
    try:
        import atheris
    except ImportError:
        sys.exit("The fuzzer needs atheris: pip install atheris")
    # Only what is fuzzed is traced, so it is imported here.
    with atheris.instrument_imports(include=["special.formats"]):
        from tests.formats.test_jp2_faults import FOLDER, MasterError, used

    def exercise(data: bytes) -> None:
        with contextlib.suppress(MasterError):
            used(data)

    has_corpus = any(not argument.startswith("-") for argument in sys.argv[1:])
    # libFuzzer adds what it finds to the first folder that it is given: never to the fixtures.
    corpus = [] if has_corpus else [tempfile.mkdtemp(prefix="fuzz-jp2-"), str(FOLDER)]
    atheris.Setup([*sys.argv, *corpus], exercise)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
