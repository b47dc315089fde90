"""tuning-report.html"""
from pathlib import Path
from scripts.tuning.trials import Search
def write(search: Search, file: Path) -> None:
    file.write_text("later")
