"""benchmarks/mnist_fit.py: its table."""

from benchmarks import mnist_fit


def test_the_table_has_first_and_last_epochs_and_mean_angles(tmp_path):
    head = "epoch,val_accuracy,weight_angle/a,weight_angle/b,seconds\n"
    (tmp_path / "mnist_fa-0.csv").write_text(f"{head}1,0.9,90,80,5\n2,0.95,60,50,5\n")
    (tmp_path / "mnist_fa-1.csv").write_text(f"{head}1,0.92,90,80,7\n2,0.97,62,40,7\n")
    (tmp_path / "mnist_bp-0.csv").write_text("epoch,val_accuracy,seconds\n1,0.98,4\n")
    assert mnist_fit.table(tmp_path).splitlines()[2:] == [
        "| mnist_bp | 1 | 98.00 | 98.00 | – | – | 4 |",
        "| mnist_fa | 2 | 91.00 ± 1.41 | 96.00 ± 1.41 | 61.0, 45.0 | – | 6 |",
    ]
