"""A user's reward, in a file outside the package."""

from rlframe.reward import Reward


class Brevity(Reward):
    """Scores 1 for `target` tokens or fewer, and less for longer completions: target / length."""

    name: str
    target: int

    def __call__(self, prompt, completion) -> float:
        return min(1.0, self.target / max(1, len(completion.token_ids)))
