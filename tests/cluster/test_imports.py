"""What the processes of a run's actors import: PyTorch takes 3 s of a processor and 200 MB of memory in each."""

import subprocess
import sys

LIGHT = [
    "reward.worker",
    "rollout.episodes",
    "cluster.episodes",
    "cluster.engines",
    "cluster.reward_actors",
    "cluster.fleet",
]


def test_reward_and_episode_workers_start_without_pytorch() -> None:
    code = "".join(f"import rlframe.{name}\n" for name in LIGHT) + "import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr
