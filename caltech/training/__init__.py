"""How weights change.

fit        the epochs that are left, with a checkpoint after each; who is told of them
testing    the test of a run that is over, its logits and both models on the disk
epoch      one epoch of training, one pass of evaluation: sums over images
features   where batches come from: crops of the pixels, or what a frozen part made of them
loss schedule average precision   the options of these groups
optimizers any of torch.optim's and timm.optim's by its name; which weights learn at which rate
device     where it computes, and the settings that make it fast there
memory     what fits into a device's memory; what is done or said if it does not
signals    SIGINT and SIGTERM, which wait for the end of a step

It may import runs, data, models and what stands below them, and never tracking: who wants to know
how a training goes on is an Observer (fit.py), and may end it.

- All randomness of an epoch is a function of the run's seed and the epoch's number, so between
  epochs no generator's state is needed to go on exactly. Inside an epoch it is in the checkpoint.
- Checkpoints are written after every epoch and every `checkpoint_minutes` inside one. Ctrl-C and
  SIGTERM write one more; during validation, at its end.
- A frozen part is computed once with `augment=none`, `flip` or `flip_both`, for all epochs of all
  trials, whole stages or all until a block; the room it takes is said and asked for first.
  `features=off` computes it in every epoch, and `features=folded` with each BatchNorm as a part of
  its convolution, which is faster; the results of the three are the same up to rounding. Where the
  trained part begins with dropout of maps, as SqueezeNet's head, its draws fall on other places.
- mix=mixup mixes what the trained part is given: images, or a frozen part's outputs, also with
  features=off and with crops that cannot be kept. So a run is the same with and without a cache.
  cutmix is of images alone, and refused where outputs are computed once. Under a mix the training
  accuracy counts answers that are the label of the larger share.
- A loss is a mean over images, also with class weights, which have a mean of 1 over the training
  part: parts of a batch, each times its share of the images, are the whole. What cannot take shares
  of labels is refused under a mix, before any work. Validation and test are plain cross-entropy.
- average=swa takes the weights once, at the end of each of the last epochs, and means BatchNorm's
  statistics as the weights, so it needs no pass over the images.
- A step waits for no GPU: its sums stay there and are read every 50 steps, before a checkpoint and
  at the end of an epoch; an evaluation is read once. A divergence still names its own step.
- `micro_batch` computes a batch in parts and sums their gradients. The batch is drawn as a whole;
  each part's loss has its weight in it. The step is that of the whole batch up to rounding, if no
  layer sees the batch (BatchNorm) or draws (dropout). A step that does not fit into memory is one
  error, with a micro_batch that was tried.
- What a frozen part gives, and what a run answers, is the same for any number of images at a time
  up to rounding: if there is no room for a batch, it is computed in parts of it. Pixels or
  features that would fill more than a quarter of a GPU's memory stay on the host.
- `patience` ends a run whose validation accuracy no longer rises. It is finished, and tested.
- precision=fp32 is IEEE on every device; TF32 is precision=tf32. A GPU gives the same bits each
  time with deterministic=true, a CPU with as many threads. compile=true gives the same up to
  rounding.
- A run whose frozen parameters or buffers changed by a bit is an error.
"""
