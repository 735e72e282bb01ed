"""A researcher's own reward, in one file outside the package."""

from rlframe.reward import Reward


class Brevity(Reward):
    """1 at `target` tokens or fewer, less for each more."""

    name: str
    target: int

    def __call__(self, prompt, completion) -> float:
        return min(1.0, self.target / max(1, len(completion.token_ids)))
