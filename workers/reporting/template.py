"""The page as HTML: what `pages` says of the runs, put into the template."""

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from impala_redis.common.records.history import Group
from impala_redis.workers.reporting import pages

if TYPE_CHECKING:
    from impala_redis.workers.reporting.charts import Drawing


def filled(groups: Sequence[Group], drawings: Sequence["Drawing"]) -> str:
    """The whole page of these runs, in which every text is escaped."""
    package = resources.files("impala_redis.workers.reporting")
    source = (package / "page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    # The drawings are ours, and the texts in them are escaped already.
    drawn = [drawing._replace(svg=Markup(drawing.svg)) for drawing in drawings]
    return environment.from_string(source).render(pages.page(groups, drawn))
