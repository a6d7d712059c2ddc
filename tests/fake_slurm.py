"""The commands of SLURM as small shell scripts that run jobs on this machine; they keep their state in a directory."""

import os
from pathlib import Path

SCRIPTS = {
    "sbatch": """
        id=$(( $(ls | grep -c '[.]sh$') + 1 )); cp "$1" $id.sh; cd "$where"
        SLURM_JOB_ID=$id setsid sh -c "bash $state/$id.sh; echo \\$? > $state/$id.exit" > /dev/null 2>&1 &
        echo "Submitted batch job $id" """,
    "srun": """
        while :; do case "$1" in
            --unbuffered) shift ;;
            --output) out="$2"; shift 2 ;;
            --error) err="$2"; shift 2 ;;
            *) break ;;
        esac; done
        echo $$ > $SLURM_JOB_ID.step; cd "$where"
        name() { echo "$1" | sed "s/%j/$SLURM_JOB_ID/; s/%t/0/"; }
        exec "$@" >> "$(name "$out")" 2>> "$(name "$err")" """,
    "sacct": """
        [ -e no-accounting ] && { echo "Slurm accounting storage is disabled" >&2; exit 1; }
        echo "JobID|State|NodeList"
        for file in *.sh; do id=${file%.sh}
            if [ -e $id.exit ]; then state=FAILED; [ "$(cat $id.exit)" = 0 ] && state=COMPLETED; else state=RUNNING; fi
            echo "$id|$state|here"
        done""",
    "squeue": """
        [ -e $3.exit ] && { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
        echo RUNNING""",
    "scancel": """
        echo $1 >> cancelled; kill -TERM $(cat $1.step)""",
}


def install_fake_slurm(path: Path) -> str:
    """Write the commands below a directory; returns the PATH that finds them."""
    state, commands = path / "state", path / "bin"
    state.mkdir(parents=True)
    commands.mkdir()
    for name, body in SCRIPTS.items():
        script = commands / name
        script.write_text(f'#!/bin/sh\nstate={state}; where=$(pwd); cd "$state"\n{body}\n')
        script.chmod(0o755)
    return f"{commands}{os.pathsep}{os.environ['PATH']}"
