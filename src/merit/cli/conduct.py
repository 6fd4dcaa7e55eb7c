"""How a worker stands, and what was decided about it, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from merit.cli.output import table
from merit.cli.plot import SHARED, Axis, around, plot
from merit.cli.values import span

_HEIGHT: Final = 6
_CURVES: Final = (("score", 5.0), ("factor", 0.1))
"""What is drawn, and between multiples of what."""
_STAGES: Final = {"PAUSED": "paused by supervision", "PROBATION": "on probation", "OUT": "deactivated by supervision"}


def special(view: Mapping[str, Any]) -> str:
    """What is special about a worker by what was decided about it, in a few words."""
    if view["factor"] is None:
        return ""
    circuit = view["circuit"]
    said = [_STAGES[view["stage"]]] if view["stage"] in _STAGES else []
    if circuit["state"] == "OPEN":
        said.append(f"breaker open until {circuit['until'][: len('YYYY-MM-DDTHH:MM:SS')]}Z")
    elif circuit["state"] == "HALF_OPEN":
        said.append("breaker half open")
    said += ["factor pinned"] if view["pinned"] else []
    return ", ".join([*said, *view["privileges"]])


def reputation(rating: Mapping[str, float] | None) -> str | None:
    """How far one is trusted, in two digits: the lower bound, by which everything goes."""
    return None if rating is None else f"{rating['low']:.2f}"


def points(score: float | None) -> str | None:
    """A score."""
    return None if score is None else f"{score:.1f}"


def standing_story(view: Mapping[str, Any]) -> Iterator[str]:
    """How a worker stands: score, reputation, what it may do, and what has led to that."""
    if view["factor"] is None:
        return
    trust = view["reputation"]
    yield f"{'score':12}{points(view['score']) or 'none yet: it was not rated'}"
    yield f"{'factor':12}{view['factor']:g}{', pinned' if view['pinned'] else ''}"
    yield f"{'reputation':12}{trust['value']:.2f}, from {trust['low']:.2f} to {trust['high']:.2f}"
    stage = view["stage"] + (f" since {view['stage_since']}" if view["stage_since"] else "")
    yield f"{'stage':12}{stage}; {view['rewards']:,} rewards, {view['punishments']:,} punishments"
    circuit = view["circuit"]
    until = f" until {circuit['until']}" if circuit["until"] else ""
    yield f"{'breaker':12}{circuit['state']}{until}{_times(circuit['openings'])}"
    if view["privileges"]:
        yield f"{'privileges':12}{', '.join(view['privileges'])}"
    yield from _lately(view["metrics"])
    for place, liberty in enumerate(view["liberties"]):
        yield f"{'' if place else 'what it may':12}{liberty}"
    yield from _plots(view["history"])
    if view["decisions"]:
        rows = [_row(decision) for decision in view["decisions"]]
        yield ""
        yield from table(("decision", "time", "verdict", "factor", "score", "by", "because"), rows)


def _times(openings: int) -> str:
    return f", opened {openings:,} times without having held" if openings > 1 else ""


def _lately(metrics: Mapping[str, Any] | None) -> Iterator[str]:
    if metrics is None or not metrics["attempts"]:
        return
    said = [f"{metrics['attempts']} attempts", f"{metrics['error_rate']:.1%} failed"]
    if metrics["mean_s"] is not None:
        said.append(f"{span(metrics['mean_s'])} each, 95 % within {span(metrics['p95_s'])}")
        said.append(f"{metrics['lateness']:.2f} × what is usual")
    said += [f"{metrics['rate_hz']:.2f}/s", f"{metrics['utilisation']:.0%} of it in use"]
    if metrics["quality"] is not None:
        said.append(f"{metrics['quality']:.1%} right of {metrics['checked']:,} looked at")
    yield f"{'lately':12}{', '.join(said)}"


def _plots(history: list[dict[str, Any]]) -> Iterator[str]:
    if len(history) < 2:
        return
    times = [datetime.fromisoformat(point["at"]).timestamp() for point in history]
    over = Axis(0, times[-1] - times[0], "s")
    for name, step in _CURVES:
        curve = {SHARED: [(at - times[0], point[name]) for at, point in zip(times, history, strict=True)]}
        yield ""
        yield f"{name} since {history[0]['at']}"
        yield from plot(curve, over, around(curve, step), height=_HEIGHT)


def _row(decision: Mapping[str, Any]) -> list[Any]:
    undone = " (undone)" if decision["undone"] else ""
    figures = figures_text(decision["figures"])
    reason = decision["reason"] + (f" [{figures}]" if figures else "")
    return [
        str(decision["decision"]),
        decision["at"],
        f"{decision['verdict']}{undone}",
        f"{decision['factor']:g}",
        points(decision["score"]),
        decision["principal"],
        reason,
    ]


def figures_text(figures: Mapping[str, int]) -> str:
    """What was gone by, as it stands in the journal: thousandths, counts, and nanoseconds where a name says so."""
    return ", ".join(f"{name} {value:,}" for name, value in figures.items())


def decision_story(view: Mapping[str, Any]) -> Iterator[str]:
    """One decision, with what it went by and what followed."""
    circuit = view["circuit"]
    yield f"{'decision':12}{view['decision']}"
    yield f"{'worker':12}{view['worker']}"
    yield f"{'at':12}{view['at']}"
    if circuit is None:
        yield f"{'verdict':12}{view['verdict']}{', undone' if view['undone'] else ''}"
        yield f"{'by':12}{view['principal']}"
        yield f"{'factor':12}{view['factor']:g} from then on"
        yield f"{'score':12}{points(view['score'])}"
    else:
        until = f" until {circuit['until']}" if circuit["until"] else ""
        yield f"{'breaker':12}{circuit['state']}{until}{_times(circuit['openings'])}"
    if view["reputation"] is not None:
        trust = view["reputation"]
        yield f"{'reputation':12}{trust['value']:.2f}, from {trust['low']:.2f} to {trust['high']:.2f}"
    yield f"{'because':12}{view['reason']}"
    for place, (name, value) in enumerate(view["figures"].items()):
        yield f"{'' if place else 'it went by':12}{name} {value:,}"
    if view["undoes"]:
        yield f"{'undoes':12}decision {view['undoes']}"
    if view["followed"]:
        yield f"{'then':12}{', '.join(view['followed'])}"
