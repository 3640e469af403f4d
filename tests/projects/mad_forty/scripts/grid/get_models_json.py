"""The models of a grid of sizes and batches: made, because nobody would keep such a list by hand."""

from pathlib import Path

from madengine.utils.discover_models import CustomModel


class GridModel(CustomModel):
    """A point of the grid. How many steps it takes is looked up when somebody has chosen it."""

    def update_model(self) -> None:
        sizes = Path(__file__).with_name("steps.txt").read_text().splitlines()
        steps = dict(line.split() for line in sizes)
        size = self.name.split("/")[-1].split("_")[1]
        self.args += f" --steps {steps[size]}"


def list_models() -> list[CustomModel]:
    return [
        GridModel(
            name=f"grid_{size}_{batch}",
            dockerfile="../../docker/grid",
            scripts="run.sh",
            owner="examples",
            training_precision="bf16",
            tags=["grid", f"grid_{size}"],
            args=f"--size {size} --batch {batch}",
        )
        for size in ("small", "large")
        for batch in (8, 64)
    ]
