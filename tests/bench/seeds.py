"""What the issue of the main job asks of several seeds: ``python -m tests.bench.seeds [WORKSPACE] [SEED...]``.

For every seed it runs `metavqa quickstart --seed SEED` (which finds what is done) and prints JSON: each row of the
evaluation as mean and s.d. over seeds, and the four statements that must hold.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from metavqa_cli.store.workspace import Workspace


def rows_of(workspace: Path, seed: int) -> dict[str, float]:
    """Label -> mean accuracy of one seed. The validated gamma, which differs by seed, is left out of the labels."""
    command = ["-q", "-w", str(workspace), "quickstart", "--seed", str(seed), "--json"]
    done = subprocess.run([sys.executable, "-m", "metavqa_cli", *command], capture_output=True, check=True, text=True)
    return {_label(row["label"]): row["mean"] for row in json.loads(done.stdout)["rows"]}


def _label(label: str) -> str:
    return label.partition(" γ = ")[0] if "validated" in label or "shuffled" in label else label


def claims(found: dict[str, list[float]]) -> dict[str, object]:
    """The statements over all seeds, with the numbers behind them, in points of accuracy or as shares."""
    mean = {label: statistics.mean(values) for label, values in found.items()}
    few_shot = max(mean[label] for label in mean if "few-shot" in label)
    multitask = mean["Uncond. Multitask"]
    task, paper = "task-loss generator + HyperLDM", "HVAE + HyperLDM"
    best = mean[f"{task}, validated"]
    rises = {name: round(mean[f"{name}, γ = 1"] - mean[f"{name}, γ = 0"], 2) for name in (task, paper)}
    return {
        "few-shot above zero-shot CLIP": round(few_shot - mean["zero-shot CLIP"], 2),
        "gamma 1 above gamma 0": rises,
        "HVAE, validated gamma, above Uncond. Multitask": round(mean[f"{paper}, validated"] - multitask, 2),
        "share of Uncond. Multitask to few-shot closed by the task-loss generator, one sample, validated gamma": round(
            (best - multitask) / (few_shot - multitask), 3
        ),
        "shuffled questions bring it down by": round(best - mean[f"{task}, shuffled questions,"], 2),
    }


def spread(values: list[float]) -> dict[str, float]:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 2), "sd": round(sd, 2)}


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Workspace.default_root()
    seeds = [int(text) for text in sys.argv[2:]] or [0, 1, 2]
    by_seed = [rows_of(root, seed) for seed in seeds]
    found = {label: [rows[label] for rows in by_seed] for label in by_seed[0]}
    table = {label: spread(values) for label, values in found.items()}
    print(json.dumps({"seeds": seeds, "rows": table, "claims": claims(found)}, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
