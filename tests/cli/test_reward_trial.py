"""A new reward on saved completions: the walkthrough of the README, and the output of the command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlframe.cli.reward_trial import histogram
from rlframe.record.rollouts import read, write_step
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Verdict, VersionSpan

README = Path(__file__).parents[2] / "README.md"
SPAN = VersionSpan(version=3, start=0, end=1)


def group(step: int, n: int, lengths: list[int]) -> ScoredGroup:
    """Prompt n of a step; completion i has lengths[i] tokens and is right if the length is even."""
    prompt = Prompt(
        id=f"sum/{step}/{n}",
        messages=[{"role": "user", "content": "2 + 3?"}],
        token_ids=[1],
        reference="5",
        task="math",
        extra={"level": n},
    )
    completions = [
        Completion(
            token_ids=[7] * length,
            logprobs=[-1.0] * length,
            versions=[SPAN],
            text=f"{length} tokens",
            finish_reason="stop",
        )
        for length in lengths
    ]
    scores = [float(length % 2 == 0) for length in lengths]
    verdicts = [Verdict(score=score, status="scored", seconds=0.001, detail="") for score in scores]
    return ScoredGroup(
        group=RolloutGroup.single_turn(prompt, completions), rewards=list(scores), verdicts={"math": verdicts}
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Two steps of two prompts with completions of 8, 24, 48 and 96 tokens."""
    for step in (1, 2):
        groups = [(group(step, n, [8, 24, 48, 96]), [0.0] * 4) for n in range(2)]
        write_step(tmp_path / "run" / "rollouts", step, groups)
    return tmp_path / "run"


def rlframe(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlframe.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_saved_groups_are_read_newest_step_first(run_dir: Path):
    groups = read(run_dir, None)
    assert [saved.group.prompt.id for saved in groups] == ["sum/2/0", "sum/2/1", "sum/1/0", "sum/1/1"]
    expected = group(2, 0, [8, 24, 48, 96])
    assert groups[0].verdicts == expected.verdicts
    token_ids = [completion.token_ids.tolist() for completion in groups[0].group.completions]
    assert token_ids == [completion.token_ids for completion in expected.group.completions]
    assert len(read(run_dir, 5)) == 2  # five completions are two groups of four


def test_the_readme_adds_and_tries_a_reward_in_under_20_lines(run_dir: Path, tmp_path: Path):
    source, command = re.search(
        r"```python\n# my_rewards\.py\n(.*?)```.*?\n(rlframe reward try .*?)\n", README.read_text(), re.S
    ).groups()
    assert len(source.strip().splitlines()) < 20
    (tmp_path / "my_rewards.py").write_text(source)
    words = command.replace("runs/first", str(run_dir)).split()
    done = rlframe(*words[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # target=24: 1, 1, 0.5 and 0.25 for 8, 24, 48 and 96 tokens.
    assert done.stdout.startswith("16 completions: 16 scored; mean score 0.6875; ")
    assert re.search(r"^\s+0.25\s+4  ━+$", done.stdout, re.M) and re.search(r"^\s+1\s+8  ━+$", done.stdout, re.M)
    assert done.stdout.index("most rewarded") < done.stdout.index("least rewarded") < done.stdout.index("slowest")


def test_failures_of_a_users_module_are_shown_with_their_error(run_dir: Path, tmp_path: Path):
    (tmp_path / "picky.py").write_text(
        "from rlframe.reward import Reward\n\n\nclass Picky(Reward):\n    def __call__(self, prompt, completion):\n"
        "        if len(completion.token_ids) == 8:\n            raise ValueError('too short for me')\n"
        "        return 1.0\n"
    )
    done = rlframe("reward", "try", "picky:Picky", "--rollouts", str(run_dir), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("16 completions: 12 scored, 4 failed; mean score 1; ")
    shown = " ".join(done.stdout.partition("\nfailed ──")[2].split())
    assert shown.count("ValueError: too short for me") >= 4


def test_a_group_reward_gets_whole_groups_and_saved_verdicts(run_dir: Path, tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from rlframe.reward import Reward\n\n\nclass Shortest(Reward):\n    def score_group(self, group, verdicts):\n"
        "        shortest = min(len(c.token_ids) for c in group.completions)\n"
        "        pairs = zip(group.completions, verdicts['math'])\n"
        "        return [v.score * (len(c.token_ids) == shortest) for c, v in pairs]\n"
    )
    done = rlframe("reward", "try", "mine.py:Shortest", "--rollouts", str(run_dir), cwd=tmp_path)
    assert done.stdout.startswith("16 completions: 16 scored; mean score 0.25; "), done.stderr


@pytest.mark.parametrize(
    ("name", "setting", "what"),
    [
        ("nothing.py:Mine", "a=1", "there is no file"),
        ("my.py:Mine", "targit=24", "target: is missing"),
        ("my.py:Mine", "targit=24", "targit: there is no such key"),
        ("brevity", "a=1", "'brevity' is none of "),
    ],
)
def test_a_trial_that_cannot_start_ends_with_exit_code_2(
    run_dir: Path, tmp_path: Path, name: str, setting: str, what: str
):
    (tmp_path / "my.py").write_text(
        "from rlframe.reward import Reward\n\n\nclass Mine(Reward):\n    target: int\n\n"
        "    def __call__(self, prompt, completion):\n        return 1.0\n"
    )
    done = rlframe("reward", "try", name, setting, "--rollouts", str(run_dir), cwd=tmp_path)
    assert done.returncode == 2
    assert what in done.stderr and "Traceback" not in done.stderr


def test_a_reward_that_reads_tokens_refuses_texts_of_an_endpoint(tmp_path: Path):
    texts = group(1, 0, [8, 24])
    for completion in texts.group.completions:
        object.__setattr__(completion, "token_ids", [])
        object.__setattr__(completion, "versions", [])
    write_step(tmp_path / "run" / "rollouts", 1, [(texts, [0.0] * 2)])
    settings = ("weight=1", "ngram=3", "free_share=0.1")
    done = rlframe("reward", "try", "repetition", *settings, "--rollouts", str(tmp_path / "run"), cwd=tmp_path)
    assert done.returncode == 2
    assert "repetition reads tokens, and 2 completions have their text alone" in done.stderr


def test_missing_rollouts_and_a_broken_line_are_named(tmp_path: Path, run_dir: Path):
    with pytest.raises(ValueError, match=rf"{tmp_path} holds no rollouts"):
        read(tmp_path, None)
    import gzip

    with gzip.open(run_dir / "rollouts" / "step_000003.jsonl.gz", "wt") as lines:
        lines.write('{"format": 1, "prompt_id": 1, "task": "math"}\n')
    with pytest.raises(ValueError, match=r"step_000003\.jsonl\.gz, line 1: no field 'messages'"):
        read(run_dir, None)


def test_the_list_has_an_entry_for_each_built_in_reward(tmp_path: Path):
    from rlframe.reward import BUILTIN

    done = rlframe("reward", "list", cwd=tmp_path)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[::2]] == sorted(BUILTIN)


def test_escape_codes_in_a_detail_are_replaced(run_dir: Path, tmp_path: Path):
    (tmp_path / "loud.py").write_text(
        "from rlframe.reward import Reward\nfrom rlframe.types import Verdict\n\n\nclass Loud(Reward):\n"
        "    def __call__(self, prompt, completion):\n"
        "        return Verdict(score=0.0, status='scored', seconds=0.0, detail='\\x1b[31mred')\n"
    )
    done = rlframe("reward", "try", "loud.py:Loud", "--rollouts", str(run_dir), cwd=tmp_path)
    assert "·[31mred" in done.stdout and "\x1b" not in done.stdout


def test_many_different_scores_are_counted_in_ten_intervals():
    lines = histogram([n / 100 for n in range(100)]).splitlines()
    assert len(lines) == 10
    assert [int(line.split()[1]) for line in lines] == [10] * 10
