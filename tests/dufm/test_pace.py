"""The way that is fastest takes the steps, whatever a single look at the clock says of it; one that has become the
fastest is found."""

from collections import Counter
from collections.abc import Callable

import pytest

from pipeline.dufm import pace
from pipeline.dufm.pace import Pace

TEAM, ONE = 2, 1


def taken(own: Pace, seconds: Callable[[int, int], float], steps: int, block: int = 500) -> Counter[int]:
    """How many steps each way takes, in blocks; ``seconds(way, share)`` is what the clock will show."""
    counts: Counter[int] = Counter()
    for _ in range(0, steps, block):
        dealt = 0
        for way, share in own.shares([TEAM, ONE], block):
            own.took(way, share, seconds(way, share))
            counts[way] += share
            dealt += share
        assert dealt == block
    return counts


def steadily(**of: float) -> Callable[[int, int], float]:
    """A clock on which a share takes as long as its steps, and the start of threads half a millisecond."""
    return lambda way, share: share * of["team" if way == TEAM else "one"] + (5e-4 if way == TEAM else 0)


@pytest.mark.parametrize(("team", "one"), [(1e-4, 1.5e-4), (3e-4, 1.5e-4), (5e-2, 9e-2)])
def test_the_faster_way_takes_all_but_a_trickle(team, one):
    counts = taken(Pace(), steadily(team=team, one=one), 100_000)
    faster = TEAM if team < one else ONE
    assert counts[faster] > 0.98 * counts.total() and len(counts) == 2


@pytest.mark.parametrize("times", [3, 100])
def test_one_interruption_does_not_change_the_way(times):
    """It was judged by its last share once: one interruption in sixteen blocks could halve the speed of the next ones,
    and, if the trial that its pace asked for was too short to be judged by, of all."""
    own, seen = Pace(), []

    def seconds(way: int, share: int) -> float:
        seen.append(way)
        undisturbed = steadily(team=1e-4, one=1.5e-4)(way, share)
        return undisturbed * (times if way == TEAM and seen.count(TEAM) % 7 == 0 else 1)

    taken(own, seconds, 5_000)
    assert taken(own, seconds, 100_000)[TEAM] > 98_000


def test_a_way_that_becomes_slow_is_left_within_few_shares_and_taken_again_when_it_is_fast():
    own = Pace()
    quiet, busy = steadily(team=1e-4, one=1.5e-4), steadily(team=4e-4, one=1.5e-4)
    taken(own, quiet, 20_000)
    assert taken(own, busy, 50_000)[ONE] > 0.95 * (50_000 - pace.REMEMBERED * 500)
    back = taken(own, quiet, 50_000)
    assert back[ONE] < (pace.LAST_LOOK + 1) * 500 and back[TEAM] == 50_000 - back[ONE]


def test_noise_that_has_driven_the_team_away_costs_few_shares():
    own = Pace()
    quiet, busy = steadily(team=1e-4, one=1.5e-4), steadily(team=4e-4, one=1.5e-4)
    taken(own, quiet, 100_000)
    taken(own, busy, (pace.REMEMBERED + 1) * 500)
    assert taken(own, quiet, 100_000)[ONE] < (pace.FIRST_LOOK + 6) * 500


def test_long_blocks_are_looked_at_on_their_way():
    """10,000 steps of 2 ms each are one block; the way becomes slow a second after they began."""
    own, clock = Pace(), [0.0]

    def seconds(way: int, share: int) -> float:
        slow = way == TEAM and clock[0] > 1
        clock[0] += share * (8e-3 if slow else 2e-3 if way == TEAM else 3e-3)
        return share * (8e-3 if slow else 2e-3 if way == TEAM else 3e-3)

    for way in (TEAM, ONE):
        own.took(way, 10, seconds(way, 10))
    assert taken(own, seconds, 10_000, block=10_000)[ONE] > 8_500


def test_steps_too_few_to_time_say_nothing_against_a_way():
    own = Pace()
    assert taken(own, lambda way, share: 1e-3, 10, block=2) == {TEAM: 10}  # the start of threads is all that was timed
    taken(own, steadily(team=1e-4, one=1.5e-4), 1_000)
    own.took(TEAM, 1, 1e-3)
    assert next(own.shares([TEAM, ONE], 100)) == (TEAM, 100)


def test_a_single_way_is_not_divided():
    assert list(Pace().shares([4], 100_000)) == [(4, 100_000)]
    assert list(Pace().shares([4, 1], 0)) == []
