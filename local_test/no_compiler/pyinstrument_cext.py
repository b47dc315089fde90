"""In place of the C part of pyinstrument, which smdebug imports for a profiler that nothing here starts."""


def setstatprofile(*_arguments: object, **_options: object) -> None:
    raise RuntimeError("pyinstrument lacks its C part: install gcc and Python's headers, then remove .venv")
