"""Every model that ships, in the order of `bloodedge models`."""

from __future__ import annotations

from bloodedge.train.models import (
    applications,
    cnn_se,
    resnet,
    study_cnn,
    study_inception,
    study_vgg,
    vgg,
    vit,
)
from bloodedge.train.models.spec import ATTENTION, ModelSpec

_OURS = (
    ModelSpec(
        "vgg16",
        "VGG-16, configuration D with batch norm: the full-size teacher",
        "teacher",
        vgg.build_vgg16,
        min_size=32,
        attention=ATTENTION,
    ),
    ModelSpec(
        "resnet18",
        "ResNet-18: a teacher at a tenth of VGG-16's cost",
        "teacher",
        resnet.build_resnet18,
        attention=ATTENTION,
    ),
    ModelSpec(
        "resnet50",
        "ResNet-50: a deep reference",
        "teacher",
        applications.build_resnet50,
        min_size=32,
        scalable=False,
    ),
    ModelSpec(
        "inception_v3",
        "Inception-v3 on images enlarged twice: a multi-scale reference",
        "teacher",
        applications.build_inception_v3,
        min_size=38,
        scalable=False,
    ),
    ModelSpec(
        "vit_tiny",
        "vision transformer: a teacher that errs differently from a CNN",
        "teacher",
        vit.build_vit_tiny,
        any_size=False,
    ),
    ModelSpec(
        "mobilenet_v3_small",
        "MobileNetV3-Small: what a phone would run without this project",
        "student",
        applications.build_mobilenet_v3_small,
        min_size=32,
    ),
    ModelSpec(
        "cnn_se",
        "compact CNN with squeeze-and-excitation: the student for the device",
        "student",
        cnn_se.build_cnn_se,
        attention=ATTENTION,
    ),
)

_STUDY = (
    ModelSpec(
        "study_vgg16",
        "the study's plain VGG-16",
        "study",
        study_vgg.build_study_vgg16,
        any_size=False,
        min_size=32,
        attention=ATTENTION,
        published=95.03,
    ),
    ModelSpec(
        "study_vgg16_dropout",
        "the study's VGG-16 with dropout, its best",
        "study",
        study_vgg.build_study_vgg16_dropout,
        any_size=False,
        min_size=32,
        attention=ATTENTION,
        published=96.43,
    ),
    ModelSpec(
        "study_vgg16_se",
        "the study's VGG-16 with SE",
        "study",
        study_vgg.build_study_vgg16_se,
        any_size=False,
        min_size=32,
        published=91.70,
    ),
    ModelSpec(
        "study_vgg16_cbam",
        "the study's VGG-16 with CBAM",
        "study",
        study_vgg.build_study_vgg16_cbam,
        any_size=False,
        min_size=32,
        published=93.31,
    ),
    ModelSpec(
        "study_resnet",
        "the study's ResNet",
        "study",
        resnet.build_study_resnet,
        attention=ATTENTION,
        published=95.67,
    ),
    ModelSpec(
        "study_cnn_bn",
        "the study's CNN with batch norm and dropout",
        "study",
        study_cnn.build_study_cnn_bn,
        any_size=False,
        attention=ATTENTION,
        published=95.59,
    ),
    ModelSpec(
        "study_cnn_se",
        "the study's CNN with SE",
        "study",
        study_cnn.build_study_cnn_se,
        any_size=False,
        attention=ATTENTION,
        published=95.03,
    ),
    ModelSpec(
        "study_cnn4",
        "the study's basic CNN with four layers",
        "study",
        study_cnn.build_study_cnn4,
        any_size=False,
        min_size=46,
        attention=ATTENTION,
        published=88.78,
    ),
    ModelSpec(
        "study_inception",
        "the study's Inception-v3",
        "study",
        study_inception.build_study_inception,
        published=88.02,
    ),
)

CATALOG = _OURS + _STUDY
