"""What the figures of real networks (E3, E4) share."""

from collections.abc import Sequence

import pandas as pd

from pipeline.studies.engine.results import Result


def record_of(results: Sequence[Result]) -> pd.DataFrame:
    """The records of several runs, which differ in their seeds, as one; what led to a fixed head left out."""
    frame = pd.concat([result.record for result in results])
    return frame[frame.stage != "dufm"]


def count_of_networks(results: Sequence[Result]) -> str:
    """How many networks (seeds) there are of every setting, in words."""
    count = len({result.config.seed for result in results})
    return f"{count} network" + "s" * (count != 1)


def summed_up(results: Sequence[Result], several: str) -> str:
    """What is drawn of every setting: ``several`` with the number of networks in it; one network is drawn as it is."""
    seeds = {result.config.seed for result in results}
    return "one network" if len(seeds) == 1 else several.format(count_of_networks(results))


def lost(results: Sequence[Result]) -> str:
    """How many of them came to no end, and in which way; empty if all did."""
    failed = [result for result in results if not result.completed]
    if not failed:
        return ""
    diverged = all("diverge" in str(result.summary.get("error")) for result in failed)
    return f"{len(failed)} of {len(results)} {'diverged' if diverged else 'failed'}"
