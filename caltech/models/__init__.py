"""Which network, where is it cut, and what of it is frozen?

    architectures  what conf/model names: any torchvision or timm classifier, cut into stages
    classifier     the stages, the cut, and whether a model fits its images and batches
    weights        pretrained weights: fetched by their libraries, verified each time, loaded
    freeze         stages that training must not change, and the proof that it did not

May import errors. Promises:

- A model has three stages, backbone, hidden and linear, and cutting changes no answer.
- An architecture of a library needs no code: model=timm model.name=NAME, or, to give it a name of
  its own, one file conf/model/NAME.yaml. A model with code of its own needs that file and a module
  here with a function (num_classes, ..., load) that gives what `classifier.cut` gives.
- Downloaded weights are compared with the hash in their file's name each time they are loaded, and
  nothing in them is executed.
- Frozen stages get no gradient and stay in eval mode; they are bitwise the same after a run.
- `str(model)` of the frozen stages is part of a name in the feature cache: it must not change.
"""
