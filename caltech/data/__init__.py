"""Which images, in which split, as which pixels?

dataset   Dataset: images, labels and three index sets, as all other rooms see them; how it is read
sources   the data sets, a function each, which conf/data/ names
folders   images in category folders: which files they are, what else is there, the digest of bytes
own       a folder of one's own images, in classes or in parts of classes
library   torchvision's labelled image sets, in the parts that their authors made
split     which image is for what, a class for each option of conf/split/
download  fetching Caltech-101 without trusting what comes
images    one image file, opened unless it is too large
pixels    decoding every image once, or whenever it is used
augment   crops and views on the device, a batch at a time, which conf/augment/ names
augmentation/  changes of a batch that have a strength, and mixtures of two images
audit     what is wrong with a data set: python -m caltech.data audit; and verify: are the images
          what the caches were made from?

May import config, keys, settings, cache, files and errors; not models.

Promises:
- Images are decoded once into a memory-mapped array (Caltech-101: 1.7 GB), crops pixel-equal to
  torchvision's Resize(256), CenterCrop(224). A decoding that is killed goes on where it was.
- The array's size is said before it is written. data.cache_pixels=false decodes each image whenever
  it is used, once all have been found readable: the same pixels bit for bit, under the same key.
- Pixels that would fill more than a quarter of a GPU's memory stay on the host. A batch is pinned
  and copied while the one before is computed. The same pixels; never tried on a GPU.
- The split of Caltech-101 is exactly the study's test set, without its random part. Other splits
  are options of conf/split/, drawn by names and a seed, the same for ever; a group stays together.
- data=caltech101_background has the background as a class, as most papers measure it. With
  split.train_on_validation=true all is chosen already: that is said, and run=best is no such run.
- One's own folder is read as it is typed: data=folder data.root=DIR, all of folders.FORMATS, of an
  animation the first frame. An empty class, one without a training image, the same image in two
  classes or in two parts that are given, parts with other classes are one error each, before any
  work. The same image that is drawn into two parts is a warning in each run.
- data=torchvision data.name=Flowers102 reads what torchvision reads, in its official parts; where
  there is no validation part, every fourth training image validates. Nothing is downloaded there
  but with data.download=true, and PostScript that is called an image is given to no program.
- No image vanishes: what is hidden, a system's, of another kind or deeper is told at each start and
  by the audit, and a category without an image of its own is an error. The overlays that
  predict --explain writes beside images (*.gradcam.png) are told and not read, too.
- Images that cannot be read, or that change while they are read, are an error that names them, and
  nothing is kept of them. Another image, or another byte in one, is another data set. That is
  seen by sizes and times (modification and change of the entry); what changes bytes beneath the
  file system, as a failing disk does, is seen by `python -m caltech.data verify`, which reads all.
- Nothing is downloaded but into the cache, unless data.download=true says so. What is downloaded is
  verified, and an archive cannot write anywhere else.
- A new data set is a function in sources.py and a file in conf/data/; one of a user's own is a
  function anywhere and a file in a folder of theirs (tests/examples/README.md).
"""
