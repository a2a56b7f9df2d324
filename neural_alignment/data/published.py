"""What is known of the published small sets: classes, image sizes, statistics, checksums.

A checksum is that of a file as it is unpacked, so that it holds for `.gz` files of any packer and
for arrays that came another way: an IDX file's bytes follow from its array.
"""

from __future__ import annotations

import dataclasses
import hashlib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published set.

    Args:
        num_classes: labels are 0 ... num_classes - 1.
        image_shape: height, width, channels.
        train: for each form the set comes in, the files of the training split, in order.
        test: the same for the test split.
        folders: where such files lie below the folder that people name.
        md5: a file's name to the MD5 of its content.
        archives: what the files are published in, where they have to be unpacked.
        mean: the mean of the training images' channels, pixels in [0, 1]; None: not used.
        stddev: their standard deviation.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    train: dict[str, tuple[str, ...]]
    test: dict[str, tuple[str, ...]]
    folders: tuple[str, ...]
    md5: dict[str, str]
    archives: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    stddev: tuple[float, ...] | None = None


_IDX_TRAIN = {"idx": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")}
_IDX_TEST = {"idx": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}

SETS = {
    "mnist": Published(
        num_classes=10,
        image_shape=(28, 28, 1),
        train=_IDX_TRAIN,
        test=_IDX_TEST,
        # torchvision's, Keras's cache, the usual names, and the npm package's.
        folders=("", "MNIST/raw", "raw", "datasets", "mnist", "MNIST", "data", "package/data"),
        md5={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion_mnist": Published(
        num_classes=10,
        image_shape=(28, 28, 1),
        train=_IDX_TRAIN,
        test=_IDX_TEST,
        # torchvision's, Debian's and Keras's cache, the authors' repository, the usual names.
        folders=(
            "", "FashionMNIST/raw", "raw", "fashion-mnist", "datasets/fashion-mnist",
            "data/fashion", "fashion_mnist", "FashionMNIST",
        ),
        md5={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
    "cifar10": Published(
        num_classes=10,
        image_shape=(32, 32, 3),
        train={
            "binary": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "pickle": tuple(f"data_batch_{number}" for number in range(1, 6)),
        },
        test={"binary": ("test_batch.bin",), "pickle": ("test_batch",)},
        folders=(
            "", "cifar-10-batches-bin", "cifar-10-batches-py", "datasets/cifar-10-batches-py",
            # Keras 3 caches them in a folder within.
            "cifar-10-batches-py-target/cifar-10-batches-py",
            "datasets/cifar-10-batches-py-target/cifar-10-batches-py",
            "cifar10", "cifar10/cifar-10-batches-bin", "cifar10/cifar-10-batches-py",
        ),
        md5={
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz", "cifar-10-batches-py.tar.gz"),
        mean=(0.4914, 0.4822, 0.4465),
        stddev=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": Published(
        num_classes=100,
        image_shape=(32, 32, 3),
        train={"binary": ("train.bin",), "pickle": ("train",)},
        test={"binary": ("test.bin",), "pickle": ("test",)},
        folders=(
            "", "cifar-100-binary", "cifar-100-python", "datasets/cifar-100-python",
            "cifar-100-python-target/cifar-100-python",
            "datasets/cifar-100-python-target/cifar-100-python",
            "cifar100", "cifar100/cifar-100-binary", "cifar100/cifar-100-python",
        ),
        md5={
            "train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
            "test.bin": "4499cfba6c016c1be1438163640a0898",
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        },
        archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
        mean=(0.5071, 0.4865, 0.4409),
        stddev=(0.2673, 0.2564, 0.2762),
    ),
}  # fmt: skip

# ILSVRC 2012.
IMAGENET = {"classes": 1000, "train": 1_281_167, "validation": 50_000}

# What TensorFlow Datasets prepares a set from, where people have to fetch it themselves.
ARCHIVES = {"imagenet2012": ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")}


def recognise(content: bytes) -> tuple[str, str] | None:
    """Which published set a file is of, whatever it is called now.

    Args:
        content: its bytes, unpacked.

    Returns:
        The set's name and the file's, without .gz; None where the content is of none.
    """
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    sums = ((name, *pair) for name, known in SETS.items() for pair in known.md5.items())
    return next(((name, file) for name, file, each in sums if each == digest), None)


def described(name: str) -> str:
    """The files a set is taken from, in words.

    Args:
        name: a key of `SETS`.

    Returns:
        As "train-images-idx3-ubyte and the like (.gz or not), mnist.npz, folders train ...".
    """
    forms = [files[0] for files in SETS[name].train.values()]
    words = f"{' or '.join(forms)} and the like (.gz or not)"
    words += f", {name}.npz" if "idx" in SETS[name].train else ""
    return f"{words}, folders train and test of {SETS[name].num_classes} class folders of images"
