r"""Turns ImageNet, or any folder of class folders, into the TFRecords that --data_dir wants.

From folders (train/n01440764/*.JPEG, validation/n01440764/*.JPEG):

    python scripts/prepare_imagenet.py --train=train --validation=validation --output_dir=OUT

From the official archives, without unpacking them:

    python scripts/prepare_imagenet.py --train=ILSVRC2012_img_train.tar \
        --validation=ILSVRC2012_img_val.tar --validation_labels=LABELS.txt --output_dir=OUT

LABELS.txt has a line with the class (n01751748) of each validation image, in the order of their
names, or with the image's name in it (LOC_val_solution.csv will do). Classes sorted by name get the
labels 0, 1, ... Stopped at any moment, the same command goes on with the first unfinished shard.
"""

import sys

from neural_alignment.cli.main import script

if __name__ == "__main__":
    sys.exit(script("prepare"))
