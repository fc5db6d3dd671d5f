"""Whose turn at KMS it is, by the clock alone."""

from hypothesis import given
from hypothesis import strategies as st

from keystow_service.acting import Urgency
from keystow_service.keys.kms_quota import KmsQuota, QuotaPolicy, Waiting
from keystow_service.keys.token_bucket import TokenBucket


class Window:
    """A quota, and who was served, in order."""

    def __init__(self, region: float, tenant: float = 1_000.0) -> None:
        self.quota = KmsQuota(QuotaPolicy(region, tenant, max_waiting=100), 0.0)
        self.served: list[str] = []

    def join(self, name: str, tenant: str = "acme", urgency: Urgency = Urgency.BACKUP) -> Waiting:
        waiting = Waiting(tenant, urgency, lambda: self.served.append(name))
        self.quota.join(waiting)
        return waiting


def test_within_the_quota_nobody_waits() -> None:
    """A second's worth of requests is served at once."""
    window = Window(region=10)
    for number in range(10):
        window.join(str(number))
    assert window.quota.serve(0.0) is None
    assert window.served == [str(number) for number in range(10)]


def test_beyond_it_turns_come_at_the_rate() -> None:
    """Each next one when there is a token for it, and the quota says when that is."""
    window = Window(region=10)
    for number in range(13):
        window.join(str(number))
    now = 0.0
    for count in (10, 11, 12):
        wait = window.quota.serve(now)
        assert len(window.served) == count
        assert wait is not None
        assert 0.09 < wait <= 0.1001
        now += wait
    assert window.quota.serve(now) is None
    assert len(window.served) == 13


def test_restores_go_before_backups_and_these_before_probes() -> None:
    """Whenever they came."""
    window = Window(region=1)
    window.join("first")
    window.quota.serve(0.0)
    for name, urgency in (("probe", Urgency.PROBE), ("backup", Urgency.BACKUP), ("restore", Urgency.RESTORE)):
        window.join(name, urgency=urgency)
    for second in (1.0, 2.0, 3.0):
        window.quota.serve(second)
    assert window.served == ["first", "restore", "backup", "probe"]


def test_tenants_take_turns() -> None:
    """A rush of one does not make the other wait for its end."""
    window = Window(region=4)
    for number in range(50):
        window.join(f"rush {number}", "acme")
    window.quota.serve(0.0)
    window.join("other", "globex")
    window.quota.serve(0.5)
    assert window.served[4:] == ["rush 4", "other"]


def test_a_tenant_at_its_own_limit_holds_up_nobody() -> None:
    """The region has room, so the others go on, however many of the one are waiting, and more urgently."""
    window = Window(region=100, tenant=2)
    for number in range(50):
        window.join(f"rush {number}", "acme", Urgency.RESTORE)
    window.join("other", "globex", Urgency.PROBE)
    wait = window.quota.serve(0.0)
    assert window.served == ["rush 0", "rush 1", "other"]
    assert wait == 0.5


def test_who_gives_up_is_not_served() -> None:
    """And takes no token from who stays; too many are told at once that there is no room."""
    window = Window(region=1)
    window.join("first")
    window.quota.serve(0.0)
    gone = window.join("gone")
    window.join("stays")
    window.quota.leave(gone)
    window.quota.leave(gone)
    window.quota.serve(1.0)
    assert window.served == ["first", "stays"]
    assert not window.quota.full
    for number in range(100):
        window.join(str(number))
    assert window.quota.full


def test_throttling_slows_down_and_passes() -> None:
    """After KMS has throttled, fewer are sent; bit by bit the full rate comes back."""
    bucket = TokenBucket(100.0, 0.0)
    bucket.slow_down(0.0)
    assert sent(bucket, 0.0, 1.0) < 80
    for second in range(1, 30):
        sent(bucket, float(second), second + 1.0)
    assert sent(bucket, 30.0, 31.0) >= 99


def test_a_storm_of_refusals_is_one() -> None:
    """Those that were under way together say the same."""
    calm, stormy = TokenBucket(100.0, 0.0), TokenBucket(100.0, 0.0)
    calm.slow_down(0.0)
    for _ in range(50):
        stormy.slow_down(0.0)
    assert sent(calm, 0.0, 1.0) == sent(stormy, 0.0, 1.0)


@given(st.floats(1, 1000), st.lists(st.floats(0, 5), max_size=50))
def test_no_more_than_the_rate(rate: float, pauses: list[float]) -> None:
    """However it is asked: never more than a second's worth at once, and the rate after that."""
    bucket = TokenBucket(rate, 0.0)
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        while bucket.wait(now) == 0:
            bucket.take()
            taken += 1
        assert taken <= max(rate, 1.0) + now * rate + 1e-6


def sent(bucket: TokenBucket, start: float, end: float) -> int:
    """How many one sends who takes every token."""
    count, now = 0, start
    while now < end:
        if bucket.wait(now) == 0:
            bucket.take()
            count += 1
        now += 0.001
    return count
