"""How does a finished run answer, here and elsewhere?

    predictor     a run's model, rebuilt from the run's own directory, and its probabilities
    ensemble      several runs that answer as one: the mean of their probabilities
    image_files   files, folders and globs to answers, in batches
    explain       Grad-CAM: where in an image a class is seen
    formats       safetensors, ONNX and MLflow: written, read again, compared with the run
    comparison    whether an export answers as its run
    serving       the code of the MLflow model, which MLflow executes
    command_line  which run is meant, for predict and export; run=KEY or --run KEY

May import training, runs, data, models, and what is below them. Promises:

- A run answers by its own files: `run=` is a key, a directory, or `best`, the finished run of
  highest validation accuracy. Neither the data set nor pretrained weights are needed, and nothing
  in the directory is executed.
- Its own test images get the answers that are stored in it, whatever batch they are asked in.
- `run=KEY,KEY,KEY` answers with the mean of the runs' probabilities (Lakshminarayanan et
  al., 2017). They have the same classes and the same images in each part, else nothing is answered.
- `--calibrated` divides logits by the temperature that fits the validation images (Guo et al.,
  2017), as the answer and the export say. No answer changes, only how sure it is. Where validation
  images were trained on it is refused.
- An export is read again and compared with the run before it is kept; nothing is overwritten.
- What an earlier version trained or exported goes on answering.
- The MLflow model carries this package's code and needs no installation of it:
  `python -m caltech.export run=best format=mlflow to=exported/mlflow`, then
  `mlflow models serve -m exported/mlflow --env-manager local -h 127.0.0.1 -p 5001`.
"""
