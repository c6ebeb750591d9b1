"""Nothing here comes pretrained: the features of the quality metric are trained by ``make embedded MODALITY=3d``."""

from __future__ import annotations


def main() -> None:
    """Say so: ``make data`` calls it in every modality."""
    print("no pretrained weights: the PointNet of the quality metric is trained by `make embedded MODALITY=3d`")


if __name__ == "__main__":
    main()
