"""The same commands, given to a fake cluster and to the real one, say the same."""

from __future__ import annotations

import os
import re
import subprocess
import time
import xml.etree.ElementTree as ET

import pytest

pytestmark = pytest.mark.cluster

#: Lines that change nothing but jobs that are held, and those that end at once.
SLURM = r"""
sbatch --version
sbatch --parsable --hold --job-name=NAME-a --comment='x "y"' --output=/dev/null --wrap true
sbatch --parsable --hold --job-name=NAME-b --output=/dev/null --array=1,3,7-20:4%3 --wrap true
sbatch --parsable --hold --job-name=NAME-c --output=/dev/null --array=0-9999 --wrap true
sbatch --parsable --job-name=NAME-d --dependency=afterany:{1}:{2} --output=/dev/null --wrap true
sbatch --parsable --job-name=NAME-e --begin=now+1hour --time=90 --cpus-per-task=2 --output=/dev/null --wrap true
squeue --noheader --name=NAME-a,NAME-b,NAME-d,NAME-e --format="%i|%F|%K|%A|%T|%t|%j|%k|%l|%D|%C|%P|%u|%E" | sort
squeue --noheader --name=NAME-a,NAME-b,NAME-c --format="%i|%r" | sort
squeue --noheader --array --name=NAME-a,NAME-b --format="%i|%F|%K|%A|%T|%r|%j|%u" | sort
squeue --noheader --array --me --name=NAME-c --format=%i | wc -l
squeue --noheader --name=nosuch-NAME
squeue --noheader --jobs={1},{2} --format="%A|%T" | sort
squeue --noheader --states=all --jobs=987654321
scontrol show job 987654321
scontrol -o show job {1} | tr ' ' '\n' | grep -E "^(JobId|JobName|JobState|Reason|Requeue|Restarts|ExitCode|Comment)="
scontrol show job {2} | grep -oE "(JobId|ArrayJobId|ArrayTaskId)=[^ ]*"
scontrol show config | grep -oE "^(MaxArraySize|MinJobAge|ClusterName|SLURM_VERSION) +="
scancel {2}_3 {2}_[11-15]
squeue --noheader --name=NAME-b --format="%i|%K|%T"
scancel {1} {2} {3} {4} {5} 987654321
scancel {1}
scancel nonsense
sleep 1; squeue --noheader --states=all --name=NAME-a,NAME-d --format="%i|%T" | sort
sbatch --parsable --partition=nosuch --wrap true
sbatch --parsable --mem=999G --wrap true
sbatch --parsable --mem=abc --wrap true
sbatch --parsable --time=abc --wrap true
sbatch --parsable --gres=nosuch:1 --wrap true
sbatch --parsable --gres=gpu:9 --wrap true
sbatch --parsable --array=0-200000 --wrap true
sbatch --parsable --array=5-2 --wrap true
sbatch --parsable --array=1,x --wrap true
sbatch --parsable --dependency=afterok:abc --wrap true
sbatch --parsable --begin=nonsense --wrap true
sbatch --parsable --constraint=nosuch --wrap true
sbatch --parsable --nosuchflag --wrap true
sbatch --parsable missing.sh
sacct --noheader --jobs=1
"""
SGE = r"""
qsub -terse -h -N NAMEa -ac k=v,paraschut=42 -o /dev/null -j y -S /bin/sh -b y true
qsub -terse -h -t 1-10 -tc 3 -N NAMEb -o /dev/null -j y -S /bin/sh -r n -pe smp 2 -l h_rt=100,h_vmem=1G -b y true
qsub -h -t 2-9:3 -N NAMEc -o /dev/null -j y -S /bin/sh -b y true
qsub -terse -h -hold_jid {1},987654321 -N NAMEd -o /dev/null -j y -S /bin/sh -b y true
qstat -j NAMEa,NAMEb,NAMEd | grep -E "^(job_number|account|job_name|context|job-array|hard|jid_pred|parallel|restart)"
qdel {2}.3
qdel {2} -t 5-6
qdel {2}.8-10
qdel {2}.3
qdel 987654321
qdel nosuchNAME
qstat -j 987654321
qstat -j nosuchNAME
qstat -xml -j 987654321
qacct -j 987654321
qacct -j nosuchNAME
qdel {1} {2}
qdel {3} {4}
qacct -j NAMEa
qsub -terse -q nosuch.q -b y true
qsub -terse -l nosuch=1 -b y true
qsub -terse -l h_rt=abc -b y true
qsub -terse -l h_vmem=abc -b y true
qsub -terse -pe nosuch 2 -b y true
qsub -terse -w e -pe smp 999 -b y true
qsub -terse -w e -l gpu=9 -b y true
qsub -terse -P nosuch -b y true
qsub -terse -t 0-3 -b y true
qsub -terse -t 1,3,7 -b y true
qsub -terse -N 1abc -b y true
qsub -terse -N 'a b' -b y true
qsub -terse -N a/b -b y true
qsub -terse -N a:b -b y true
qsub -terse -N a@b -b y true
qsub -terse -N 'a*b' -b y true
qsub -terse -nosuchflag -b y true
qsub missing.sh
qconf -spl
"""


def answers(lines, name, folder, variables):
    """Return the lines and what each said, with the ids of our jobs replaced by their order."""
    ids, found = [], []
    for line in filter(None, lines.splitlines()):
        given = re.sub(r"\{(\d)\}", lambda match: ids[int(match[1]) - 1], line.replace("NAME", name))
        done = subprocess.run(
            ["sh", "-c", given],
            capture_output=True,
            text=True,
            cwd=folder,
            env=variables,
            timeout=100,
            check=False,
        )
        if done.returncode == 0 and line.startswith(("sbatch --parsable", "qsub")):
            ids.append(re.search(r"\d+", done.stdout)[0])
        found.append(
            (line, [_plain(text, ids, name) for text in (done.stdout, done.stderr)], done.returncode)
        )
    return found


def compare(lines, name, folder, fake, real):
    """Fail with every line to which the two answer differently."""
    both = zip(answers(lines, name, folder, fake), answers(lines, name, folder, real), strict=True)
    different = [
        f"{line}\n  fake {one}\n  real {other}" for (line, *one), (_, *other) in both if one != other
    ]
    assert not different, "\n".join(different)


def _plain(text, ids, name):
    for order, number in enumerate(ids):
        text = re.sub(rf"(?<!\d){number}(?!\d)", f"<{order + 1}>", text)
    text = text.replace(name, "NAME")
    # Spaces at the ends of lines and the width of columns carry nothing.
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.fixture
def name():
    """Return a name that no other job has."""
    return f"t{os.getpid()}x{time.monotonic_ns() % 10**6}"


def fake_and_real(fake):
    """Return the variables with which the fake's commands are found, and the real ones."""
    fake.first_id(80_000)  # like those of the real ones, its ids are numbers that mean nothing else
    path = os.environ["PATH"].replace(f"{fake.bin}:", "")
    return {**os.environ, "PATH": f"{fake.bin}:{path}"}, {**os.environ, "PATH": path}


def test_slurm(slurm, fake_slurm, name, tmp_path):
    fake_slurm.set(accounting=slurm.accounting, array_limit=10_001)
    fake, real = fake_and_real(fake_slurm)
    compare(SLURM, name, tmp_path, fake, real)


def test_slurm_ends(slurm, fake_slurm, name, tmp_path):
    fake, real = fake_and_real(fake_slurm)
    script = "#!/bin/sh\ncase $SLURM_ARRAY_TASK_ID in 0) exit 0;; 1) exit 7;; 2) kill -SEGV $$;; 3) sleep 60;; esac\n"
    (tmp_path / "script").write_text(script)
    lines = f"""
sbatch --parsable --job-name=NAME --output=/dev/null --array=0-3 script
until [ $(squeue --noheader --array --name=NAME --states=R,PD,CG | wc -l) = 1 ]; do sleep 0.1; done
until squeue --noheader --name=NAME --states=R --format=%i | grep _3; do sleep 0.1; done; scancel {{1}}_3
until [ -z "$(squeue --noheader --name=NAME)" ]; do sleep 0.1; done
squeue --noheader --array --name=NAME --states=all --format="%i|%F|%K|%T|%t|%r" | sort
scontrol -o show job {{1}} | grep -oE "(ArrayTaskId| ExitCode|JobState|StdOut|WorkDir)=[^ ]*" | paste - - - - - | sort
sbatch --parsable --job-name=NAME-none --output={tmp_path}/no/such/folder/x.out script
until [ -z "$(squeue --noheader --name=NAME-none)" ]; do sleep 0.1; done
squeue --noheader --name=NAME-none --states=all --format="%T|%r"
scontrol -o show job {{2}} | grep -oE " ExitCode=[^ ]*"
"""
    compare(lines, name, tmp_path, fake, real)


def test_grid_engine(sge, fake_sge, name, tmp_path):
    fake, real = fake_and_real(fake_sge)
    compare(SGE, name, tmp_path, fake, real)


def shape(text):
    """Return the paths of all elements of a document, with the texts that are not times or names of hosts."""
    paths = []

    def walk(element, path):
        here = f"{path}/{element.tag}{element.attrib or ''}"
        loose = ("JB_job_number", "JAT_prio", "time", "queue_name")
        text = "" if element.tag.endswith(loose) else (element.text or "").strip()
        paths.append((here, text))
        for child in element:
            walk(child, here)

    walk(ET.fromstring(text), "")
    return paths


def test_grid_engine_in_xml(sge, fake_sge, name, tmp_path):
    fake, real = fake_and_real(fake_sge)
    shapes = []
    for variables in (fake, real):

        def say(line, variables=variables):
            return subprocess.run(
                ["sh", "-c", line], capture_output=True, text=True, env=variables, check=False
            ).stdout

        job = say(
            f"qsub -terse -t 1-9 -tc 2 -N {name} -o /dev/null -j y -S /bin/sh -b y sleep 100"
        ).partition(".")[0]
        held = say(f"qsub -terse -h -N {name}h -pe smp 2 -b y true").strip()
        while len(re.findall("<state>r</state>", say(f"qstat -xml -s r | grep -A4 '>{job}<'"))) < 2:
            time.sleep(0.2)
        say(f"qdel {job}.5")
        lists = [ET.fromstring(say(f"qstat -xml -u '*' -s prs {more}")) for more in ("", "-g d")]
        for found in lists:
            for part in found:
                for row in list(part):
                    if row.findtext("JB_job_number") not in (job, held):
                        part.remove(row)
        shapes.append([shape(ET.tostring(found)) for found in lists])
        say(f"qdel {job} {held}")
    assert shapes[0] == shapes[1]


def test_grid_engine_ends(sge, fake_sge, name, tmp_path):
    fake, real = fake_and_real(fake_sge)
    (tmp_path / "script").write_text(
        "case $SGE_TASK_ID in 1) exit 0;; 2) exit 7;; 3) kill -SEGV $$;; 4) sleep 60;; esac\n"
    )
    running = "qstat | awk '$5 == \"r\"' | grep -c '{1} '"
    lines = f"""
qsub -terse -N NAME -t 1-4 -S /bin/sh -o /dev/null -j y script
until [ "$({running})" = 1 ] && qacct -j {{1}} -t 3; do sleep 0.2; done > /dev/null 2>&1
qdel {{1}}
until [ $(qacct -j {{1}} | grep -c ^exit_status) = 4 ]; do sleep 0.2; done > /dev/null 2>&1
for i in 1 2 3 4; do qacct -j {{1}} -t $i | grep -E "^(jobname|jobnumber|taskid|failed|exit_status|slots|account)"; done
qacct -j {{1}} -t 1 | cut -d' ' -f1 | grep -vE "ru_|^(arid|ar_sub_time)"
qsub -terse -N NAMEe -S /bin/sh -o {tmp_path}/no/such/folder/x -j y -b y true
until qstat | grep -q Eqw; do sleep 0.2; done
qstat -j {{2}} | grep "^error reason" | sed 's/^.*]: //'
qdel {{2}}
"""
    compare(lines, name, tmp_path, fake, real)
