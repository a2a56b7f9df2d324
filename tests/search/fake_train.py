"""A training script that trains nothing: takes flags, writes metrics.csv, fails on demand."""

import os
import pathlib
import signal
import sys
import time

flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
workdir = pathlib.Path(flags["workdir"])
workdir.mkdir(parents=True, exist_ok=True)
with open(workdir / "starts.txt", "a") as file:
    file.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
fault = flags.get("fault", "none")
x, y = float(flags.get("x", 0)), float(flags.get("y", 1))
score = 1.0 - (x - 0.3) ** 2 - (0.1 * y) ** 2

if fault == "segfault":
    os.kill(os.getpid(), signal.SIGSEGV)
if fault == "hang":
    time.sleep(600)
if fault == "disk":
    with open("/dev/full", "w") as full:
        full.write("checkpoint")
if fault == "fill":  # the disk, for real
    with open(workdir / "checkpoint.part", "wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
if flags.get("data_dir") == "missing":
    sys.stderr.write("error: --data_dir: Expected a folder. Received 'missing'.\n")
    sys.exit(2)
if fault == "error":
    sys.exit("ValueError: Expected sense. Received none.")
if fault == "silent":
    sys.exit(0)
epochs = int(float(flags["max_epochs"]))
metrics = workdir / "metrics.csv"
text = metrics.read_text() if metrics.exists() else ""
behind = max(0, len(text.splitlines()) - 1)
with open(metrics, "a", buffering=1) as file:
    if not text:
        file.write("epoch,global_step,loss,alignment_loss,val_loss,val_top1,val_top5\n")
    for epoch in range(behind + 1, epochs + 1):
        time.sleep(float(flags.get("epoch_seconds", 0)))
        loss = "nan" if fault == "nan" and epoch == epochs else 1 / epoch
        file.write(f"{epoch},{epoch * 10},{loss},0.1,1.0,{score * epoch / epochs},1.0\n")
if fault == "nan_exit":
    sys.exit("error: NaN or infinite between step 10 and 20: loss.")
if fault == "told_to_stop" and not behind:
    sys.exit(75)
