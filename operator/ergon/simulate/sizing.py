"""The smallest sizes that keep the target for 99 % of requests, found by trying them on the very day that is measured."""

from collections.abc import Callable, Sequence

ENOUGH, ENOUGH_EACH = 0.99, 0.97
"""Of all requests, and of those of each model."""

MOST_TRIES = 14


class NoSize(Exception):
    """No size that is allowed is enough; the message is for a person."""


def smallest(enough: Callable[[int], bool], guess: int, most: int) -> int:
    """The least whole number from 1 to `most` that is enough, where more is never worse. Raises NoSize.

    It gallops from the guess, then bisects: a good guess takes two tries.
    """
    low, high = 0, None
    at, step = min(max(guess, 1), most), 1
    for _ in range(2 * MOST_TRIES):
        if enough(at):
            high = at
            if at - low <= 1:
                return at
            at = max(low + 1, at - step) if low == 0 else (low + at) // 2
        else:
            low = at
            if at >= most:
                break
            if high is not None and high - low <= 1:
                return high
            at = min(most, at + step) if high is None else (low + high) // 2
        step *= 2
    if high is None:
        raise NoSize(f"even {most} are not enough")
    return high


def smallest_each(
    shares: Callable[[Sequence[int], Sequence[int]], Sequence[float]], guesses: Sequence[int], most: Sequence[int]
) -> list[int]:
    """The same for many models that do not disturb each other, all tried at once.

    `shares(counts, open)` gives the share in time of each model of `open` (their numbers) with these counts. A model
    for which the most is not enough keeps the most.
    """
    count = len(guesses)
    low, high = [0] * count, [0] * count
    at = [min(max(g, 1), m) for g, m in zip(guesses, most, strict=True)]
    step = [1] * count
    left = list(range(count))
    for _ in range(MOST_TRIES):
        found = shares(at, left)
        still = []
        for m, share in zip(left, found, strict=True):
            if share >= ENOUGH:
                high[m] = at[m]
            else:
                low[m] = at[m]
                if at[m] >= most[m]:
                    high[m] = most[m]
                    continue
            if high[m] and high[m] - low[m] <= 1:
                continue
            if not high[m]:
                at[m] = min(most[m], at[m] + step[m])
            elif not low[m]:
                at[m] = max(1, at[m] - step[m])
            else:
                at[m] = (low[m] + high[m]) // 2
            step[m] *= 2
            still.append(m)
        left = still
        if not left:
            break
    return [max(1, h or a) for h, a in zip(high, at, strict=True)]
