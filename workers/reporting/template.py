"""The page as HTML: what `pages` says of the runs, put into the template."""

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from impala_redis.common.errors import printable
from impala_redis.common.records.history import Group
from impala_redis.workers.reporting import pages

if TYPE_CHECKING:
    from impala_redis.workers.reporting.charts import Drawing


def filled(groups: Sequence[Group], drawings: Sequence["Drawing"]) -> str:
    """The whole page of these runs, in which every text is one printable line, and escaped."""
    package = resources.files("impala_redis.workers.reporting")
    source = (package / "page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_one_line,
    )
    environment.filters["unbroken"] = _unbroken
    # The drawings are ours, and the texts in them are escaped already.
    drawn = [drawing._replace(svg=Markup(drawing.svg)) for drawing in drawings]
    return environment.from_string(source).render(pages.page(groups, drawn))


def _one_line(value: Any) -> Any:
    """A text of a run's files must not begin a line of its own, whatever reads the page."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _unbroken(text: str) -> Markup:
    return Markup(escape(printable(text)).replace(" %", "\N{NO-BREAK SPACE}%"))
