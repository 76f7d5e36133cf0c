"""Which network, where is it cut, and what of it is frozen?

    architectures  what conf/model names: any torchvision or timm classifier, cut into stages
    names          of architectures and weights, as they are typed: known, or the nearest right one
    rehearsal      what a network would be like: refused before its weights are downloaded
    heads          the layers that classify: taken off, and fresh ones put on
    classifier     the stages, the cut, and whether a model fits its images and batches
    weights        pretrained weights: fetched by their libraries, verified each time, loaded
    freeze         stages that training must not change, and the proof that it did not
    blocks         a network's blocks in the order in which they run: python -m caltech.models NAME
    until          all that runs before a block, frozen
    parts          a network in two at a cut: what comes before it, and the rest

May import config, settings and errors. Promises:

- A model has three stages, backbone, hidden and linear, and cutting changes no answer.
- An architecture of a library needs no code: model=timm model.name=NAME, or, to give it a name of
  its own, one file conf/model/NAME.yaml. A model with code of its own needs that file and a module
  here with a function (num_classes, ..., load, size) that gives what `classifier.cut` gives.
- What classifies may be a linear layer, a convolution, or two linear layers; weights that were
  trained without classes get a linear layer on their pooled features.
- A network that is made for images of another size is told theirs, and what its weights know of
  places is interpolated as its library does it. One that takes them anyway is left as it is.
- What cannot work is refused before a download; a download that nobody answers, in seconds.
- Downloaded weights are compared with the hash in their file's name each time they are loaded, and
  nothing in them is executed.
- Frozen stages get no gradient and stay in eval mode; they are bitwise the same after a run.
- A network frozen until a block is computed until there once if its two parts give, bit for bit,
  what the whole gives of an image; this is tried each time, and said if it is not so.
- `str(model)` of the frozen stages is part of a name in the feature cache: it must not change.
"""
