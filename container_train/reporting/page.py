"""HTML pages of one file: the templates of this package, with Bokeh's script and the charts inside."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from bokeh.document import Document
from bokeh.embed import components
from bokeh.models import Model
from bokeh.resources import Resources

from container_train.reporting import words

TEMPLATES = Path(__file__).with_name("templates")


@functools.cache
def environment(*more: Path) -> jinja2.Environment:
    """The templates, also those of the folders `more`; all that is put into them is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader((TEMPLATES, *more)), autoescape=True, undefined=jinja2.StrictUndefined
    )
    made.filters |= {"plural": words.count, "duration": words.duration, "share": words.share}
    return made


@functools.cache
def _bokeh() -> str:
    return str(Resources(mode="inline", components=["bokeh"]).render())


def render(template: str | Path, plots: Mapping[str, Model], **values: Any) -> str:
    """The page, with `plots` as `divs` of the same names, and `values`. A template elsewhere is given by its path."""
    if plots:
        # Added one by one, each root would have Bokeh walk through all of them again.
        document = Document()
        with document.models.freeze():
            for plot in plots.values():
                document.add_root(plot)
    script, divs = components(plots) if plots else ("", {})
    found = environment() if isinstance(template, str) else environment(template.parent)
    page = found.get_template(Path(template).name)
    return page.render(bokeh=_bokeh() if plots else "", script=script, divs=divs, **values)
