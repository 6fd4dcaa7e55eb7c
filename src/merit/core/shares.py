"""Fair shares: what each tenant has had, of which workers.

Start-time fair queueing (Goyal, Vin, Cheng, 1996): an account is charged the expected cost of each attempt, divided by
the tenant's weight, when the attempt is given out, and who was charged least goes first. What is counted together is
what the same workers do: a *pool* is the capabilities that are connected by workers which offer several of them. What a
tenant has of workers that cannot do this work does not count against it here.

**Fairness.** Among tenants that have something pending all the time, for workers that offer all of it, what they were
charged per weight differs by no more than two tasks' cost per weight of each. Who comes back after a pause starts one
task before the one that would have been next: nobody saves up, and nobody has to make good what others had while it was
away. So a tenant's first task waits for no more than what is running, whatever else is pending.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace

from msgspec import Struct

_PRUNE_AT_LEAST = 64


class Account(Struct):
    """What a tenant has had of a pool: ``charged`` is virtual time, nanoseconds of work by its weight."""

    tenant: str
    weight: int = 1
    charged: int = 0
    pending: int = 0
    listed: bool = False

    @property
    def usual(self) -> bool:
        return not self.pending and not self.listed and self.weight == 1


class Pool:
    """Capabilities that share workers, and what tenants have had of these."""

    __slots__ = ("_accounts", "_active", "_now", "_prune_at", "_step", "_weights", "capabilities")

    def __init__(self, capability: str, weights: dict[str, int]) -> None:
        self.capabilities = {capability}
        self._weights = weights
        self._accounts: dict[str, Account] = {}
        self._active: list[tuple[int, str]] = []
        """A heap of the tenants that may have something pending, by what they were charged when they were listed."""
        self._now = 0
        """What the one served last had been charged before."""
        self._step = 0
        """What it was charged then."""
        self._prune_at = _PRUNE_AT_LEAST

    def account(self, tenant: str) -> Account:
        """The tenant's, which is there from now on."""
        account = self._accounts.get(tenant)
        if account is None:
            if len(self._accounts) >= self._prune_at:
                self._prune()
            account = self._accounts[tenant] = Account(tenant, self._weights.get(tenant, 1))
        return account

    def accounts(self) -> list[Account]:
        """All of them."""
        return list(self._accounts.values())

    def _prune(self) -> None:
        """An account that says nothing (nothing pending, nothing to make good) need not be there."""
        for account in self.accounts():
            if not account.pending and not account.listed and account.charged <= self._now:
                del self._accounts[account.tenant]
        self._prune_at = max(_PRUNE_AT_LEAST, 2 * len(self._accounts))

    def come_back(self, account: Account) -> None:
        """A tenant that had nothing pending is about to have something."""
        # A little more than one task, so that it is not noise in what tasks cost that decides who is second.
        account.charged = max(account.charged, self._next() - self._step - self._step // 4)
        if not account.listed:
            account.listed = True
            heappush(self._active, (account.charged, account.tenant))

    def _next(self) -> int:
        """What the tenant was charged that goes next; where nobody waits, what the last one was."""
        active = self._active
        while active:
            charged, tenant = active[0]
            account = self._accounts[tenant]
            if not account.pending:
                heappop(active)
                account.listed = False
            elif account.charged != charged:
                heapreplace(active, (account.charged, tenant))
            else:
                return charged
        return self._now

    def charge(self, account: Account, cost_ns: int, count: int = 1) -> None:
        """``count`` attempts are given out that are expected to cost so much in all."""
        step = max(count, cost_ns // account.weight)
        account.charged += step
        self._step = step // count
        self._now = max(self._now, account.charged - self._step)

    def charge_more(self, tenant: str, cost_ns: int) -> None:
        """An attempt took so much longer than it was charged for."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.charged += cost_ns // account.weight

    def set_weight(self, tenant: str, weight: int) -> None:
        """From now on the tenant gets so much of the whole."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.weight = weight

    def absorb(self, other: Pool) -> None:
        """The two have workers in common now: by how much each tenant is ahead stays, the larger where it is in both."""
        self.capabilities |= other.capabilities
        for theirs in other.accounts():
            mine = self.account(theirs.tenant)
            ahead = max(0, theirs.charged - other._now)
            mine.charged = max(mine.charged, self._now + ahead)
            mine.pending += theirs.pending
            if mine.pending and not mine.listed:
                mine.listed = True
                heappush(self._active, (mine.charged, mine.tenant))


class Shares:
    """The pools of a cell. They grow together and are never parted again by this process: workers that leave come back."""

    def __init__(self) -> None:
        self.weights: dict[str, int] = {}
        """Of tenants with another one than 1."""
        self._pools: dict[str, Pool] = {}
        self._prune_at = _PRUNE_AT_LEAST

    def pool(self, capability: str) -> Pool:
        """The one that a capability is in."""
        pool = self._pools.get(capability)
        if pool is None:
            if len(self._pools) >= self._prune_at:
                self._prune()
            pool = self._pools[capability] = Pool(capability, self.weights)
        return pool

    def pools(self) -> list[Pool]:
        """All of them, each once."""
        return list({id(pool): pool for pool in self._pools.values()}.values())

    def _prune(self) -> None:
        """Capabilities that nobody offers together with others, and of which nothing is pending."""
        for capability, pool in list(self._pools.items()):
            if len(pool.capabilities) == 1 and not any(account.pending for account in pool.accounts()):
                del self._pools[capability]
        self._prune_at = max(_PRUNE_AT_LEAST, 2 * len(self._pools))

    def join(self, capabilities: Sequence[str]) -> list[str]:
        """They are offered by one worker; those that have come into another pool by that."""
        first, *others = dict.fromkeys(capabilities)
        pool = self.pool(first)
        moved: list[str] = []
        for capability in others:
            other = self.pool(capability)
            if other is not pool:
                pool.absorb(other)
                moved += other.capabilities
                self._pools.update(dict.fromkeys(other.capabilities, pool))
        return sorted(moved)

    def set_weight(self, tenant: str, weight: int) -> None:
        """From now on the tenant gets so much of the whole."""
        if weight == 1:
            self.weights.pop(tenant, None)
        else:
            self.weights[tenant] = weight
        for pool in self.pools():
            pool.set_weight(tenant, weight)
