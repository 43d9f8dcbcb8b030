"""What two studies must have in common if they were trained in the same way."""

from train import records


def content(directory):
    """The records of all runs of a study by name, without anything that depends on the clock."""
    found = {}
    for path in records.find_runs(directory):
        run = records.read_run(path)
        found[path.name] = (
            run.config,
            records.without_clock(run.metrics),
            run.evals,
            run.status["state"],
        )
    return found


def run_table(directory):
    """The report's table of runs as text, without anything that depends on the clock."""
    from eval.data.study import read_study

    return (
        read_study(directory)
        .runs.drop(columns=[*(records.CLOCK - {"memory_bytes"}), "study"])
        .to_csv(index=False)
    )
