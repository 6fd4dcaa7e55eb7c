"""A task together with those by which others were asked about its results."""

from __future__ import annotations

from typing import Any, Final

from merit.model.search import REVIEW_OF
from merit.sdk.client import AsyncClient
from merit.sdk.operations import Where

_REVIEWS_MAX: Final = 100


async def whole(client: AsyncClient, task_id: str) -> dict[str, Any]:
    """The task as ``AsyncClient.task`` gives it, and under ``reviews`` the tasks that look at its results, likewise, in their
    order."""
    view = await client.task(task_id)
    reviews: list[dict[str, Any]] = []
    # A result that is looked at has come before the task ends, one that is not ends it.
    if any(attempt["ended"] != view["ended"] for attempt in view["attempts"] if attempt["ended"]):
        where = Where(labels={REVIEW_OF: task_id}, reviews=True)
        page = await client.tasks(where=where, limit=_REVIEWS_MAX)
        # Anybody may have given a task of his own such a label.
        real = [one["id"] for one in page.tasks if one["terms"].get("review", {}).get("of") == task_id]
        reviews = [await client.task(one) for one in reversed(real)]
    return view | {"reviews": reviews}
