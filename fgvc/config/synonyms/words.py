"""Words of other tools for a setting -> their meaning here.

A row holds the words, separated by spaces, and their meaning. A dotted key is looked up whole first,
then without its first node: trainer.optimizer.lr, optimizer.lr, lr.
"""

from __future__ import annotations

from dataclasses import dataclass

from fgvc.config.synonyms import values


@dataclass(frozen=True)
class Meaning:
    """The meaning of a word.

    keys: the first that the chosen options have is used, otherwise the first. value: converts the
    typed value. needs: options to choose too. tasks: those that read the key, the default first;
    empty: any. note: further information; without keys, the whole answer.
    """

    keys: tuple[str, ...] = ()
    value: values.Convert = values.same
    needs: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    note: str = ""


ROWS: tuple[tuple[str, Meaning], ...] = (
    (
        "lr learning_rate base_lr lr_base blr eta lr0 lrate init_lr initial_lr max_lr",
        Meaning(("task.learning_rate", "head.fit.learning_rates")),
    ),
    (
        "wd weight_decay decay l2 weight_decay_rate",
        Meaning(("task.weight_decay", "head.fit.weight_decays")),
    ),
    (
        "bs b batch batch_size batchsize train_batch_size batch_size_train total_batch_size "
        "global_batch_size",
        Meaning(("task.batch_size", "head.fit.batch_size")),
    ),
    (
        "per_device_train_batch_size batch_size_per_gpu batch_size_per_device per_gpu_batch_size "
        "samples_per_gpu",
        Meaning(("task.batch_size",), values.per_device, note="over all processes"),
    ),
    (
        "eval_batch_size val_batch_size test_batch_size validation_batch_size batch_size_val "
        "batch_size_eval per_device_eval_batch_size batch_size_test",
        Meaning(("runtime.eval_batch_size",)),
    ),
    (
        "accumulate accum grad_accum accum_iter accum_freq accum_steps accumulation_steps "
        "grad_accum_steps accumulate_grad_batches gradient_accumulation_steps "
        "gradient_accumulation iters_to_accumulate",
        Meaning(
            ("runtime.micro_batch",),
            values.micro_batch,
            note="images per forward pass; task.batch_size stays the global batch",
        ),
    ),
    (
        "epoch epochs max_epochs num_epochs n_epochs num_train_epochs train_epochs nepochs",
        Meaning(("task.epochs", "head.fit.epochs")),
    ),
    (
        "max_steps num_steps total_steps max_iter max_iters iterations steps",
        Meaning(note="fgvc counts epochs: task=train task.epochs=N"),
    ),
    (
        "warmup_steps num_warmup_steps warmup_iters",
        Meaning(("task.warmup_steps",)),
    ),
    (
        "warmup warmup_epochs lr_warmup_epochs warmup_ratio warmup_length n_warmup_epochs",
        Meaning(note="fgvc counts steps of one batch: task=train task.warmup_steps=STEPS"),
    ),
    ("min_lr lr_min eta_min final_lr", Meaning(note="task.final_rate: a fraction of the peak")),
    (
        "scheduler sched lr_scheduler lr_scheduler_type lr_schedule lr_policy step_size gamma "
        "milestones lr_step_size lr_gamma decay_rate decay_epochs t_max",
        Meaning(
            note="fgvc has no choice of schedules: always a cosine after the warmup "
            "(task.warmup_steps, task.final_rate)"
        ),
    ),
    (
        "opt optim optimizer optimiser optim_name optimizer.name optimizer_name optimizer_type",
        Meaning(
            ("task.optimiser",),
            values.from_table("adamw", adamw="adamw", sgd="sgd", momentum="sgd"),
            note="fgvc has adamw and sgd",
        ),
    ),
    ("momentum", Meaning(("task.momentum",), note="task.optimiser=sgd reads it")),
    (
        "betas beta1 beta2 adam_beta1 adam_beta2 eps adam_epsilon opt_eps opt_betas nesterov "
        "amsgrad dampening",
        Meaning(note="fgvc has no such setting of the optimiser"),
    ),
    ("layer_decay llrd layerwise_lr_decay lr_decay_rate", Meaning(("task.layer_decay",))),
    (
        "clip_grad grad_clip clip_norm max_grad_norm gradient_clip_val clip_grad_norm "
        "grad_clip_norm max_norm grad_norm",
        Meaning(("task.clip_norm",)),
    ),
    ("drop_path drop_path_rate stochastic_depth", Meaning(("task.drop_path",))),
    (
        "dropout drop drop_rate attn_drop attn_dropout",
        Meaning(
            ("head.dropout",), values.number_or("0.1"), note="of head=mlp; backbones have none"
        ),
    ),
    (
        "label_smoothing smoothing label_smoothing_factor ls",
        Meaning(("task.label_smoothing",), values.number_or("0.1")),
    ),
    ("mixup mixup_alpha mix_up", Meaning(("task.mixup",), values.number_or("0.8"))),
    ("cutmix cutmix_alpha cut_mix", Meaning(("task.cutmix",), values.number_or("1.0"))),
    ("mixup_prob mix_prob mixup_cutmix_prob cutmix_prob", Meaning(("task.mix_probability",))),
    (
        "reprob random_erase random_erasing random_erasing_prob erase",
        Meaning(("task.erasing",), values.number_or("0.25")),
    ),
    (
        "aa auto_augment autoaugment augmentation augment aug randaugment rand_augment "
        "augmentations",
        Meaning(
            ("task.auto_augment",),
            values.from_table(
                "randaugment",
                rand="randaugment",
                ta="trivialaugment",
                trivial="trivialaugment",
                none="none",
            ),
            note="fgvc has RandAugment and TrivialAugment",
        ),
    ),
    (
        "trivialaugment trivial_augment ta_wide",
        Meaning(("task.auto_augment",), values.switch("trivialaugment", "none")),
    ),
    (
        "hflip hflip_prob flip_prob horizontal_flip",
        Meaning(("task.flip",), values.number_or("0.5")),
    ),
    (
        "vflip color_jitter jitter ratio grayscale gaussian_blur",
        Meaning(note="fgvc has no such augmentation: task.crop, task.flip, task.auto_augment"),
    ),
    (
        "ema model_ema ema_decay model_ema_decay use_ema",
        Meaning(("task.ema",), values.number_or("0.9998", "null"), note="the decay"),
    ),
    (
        "early_stopping early_stopping_patience early_stop patience_epochs patience",
        Meaning(
            ("task.patience",), values.number_or("10", "null"), note="epochs without improvement"
        ),
    ),
    (
        "metric_for_best_model monitor eval_metric checkpoint_metric",
        Meaning(("task.select",), values.chosen_by, note="top1 or loss, on validation"),
    ),
    (
        "loss criterion loss_fn loss_function",
        Meaning(note="fgvc trains on cross-entropy; task.label_smoothing, task.mixup shape it"),
    ),
    (
        "class_weights balanced_sampling weighted_sampler sampler balance",
        Meaning(("task.sampling",), values.switch("class_balanced", "uniform")),
    ),
    (
        "freeze freeze_backbone freeze_encoder linear_probe linear_probing lock_image frozen "
        "freeze_model linprobe",
        Meaning(("task",), values.switch("probe", "train")),
    ),
    ("finetune fine_tune finetuning unfreeze", Meaning(("task",), values.switch("train", "probe"))),
    (
        "freeze_layers frozen_layers freeze_at",
        Meaning(("task.frozen_stages",), values.number_or("1")),
    ),
    (
        "zero_shot zeroshot",
        Meaning(("task",), values.switch("zero_shot", "probe"), ("backbone=clip",)),
    ),
    (
        "test test_only eval evaluate eval_only validate do_eval do_test e",
        Meaning(("task",), values.switch("eval", "train"), note="with checkpoint=RUN"),
    ),
    ("train do_train", Meaning(("task",), values.switch("train", "eval"))),
    (
        "predict inference infer do_predict",
        Meaning(("task",), values.switch("predict", "eval"), note="with checkpoint=RUN image=PATH"),
    ),
    ("knn use_knn", Meaning(("head",), values.switch("knn", "linear"), tasks=("probe",))),
    (
        "k knn_k nb_knn n_neighbors num_neighbors neighbors",
        Meaning(("head.k",), tasks=("probe",)),
    ),
    ("knn_temperature knn_t", Meaning(("head.temperature",), tasks=("probe",))),
    ("hidden_dim hidden_size mlp_dim", Meaning(("head.hidden",))),
    (
        "c regularization reg penalty l2_regularization",
        Meaning(note="a probe chooses its penalty on validation, from task.c_low to task.c_high"),
    ),
    (
        "num_classes nb_classes n_classes classes num_labels nclasses",
        Meaning(note="the number of classes comes from the dataset: leave it out"),
    ),
    (
        "data_dir data_path data_root root datadir dataroot imagefolder image_folder image_root "
        "root_dir dataset_dir dataset_path dataset_root img_dir image_dir images_dir data.root "
        "data.path data.dir dataset.dir dataset.path train_dir train_path imagenet_path",
        Meaning(("dataset.root",), needs=("dataset=folder",)),
    ),
    (
        "val_dir valid_dir test_dir validation_dir val_path test_path val_data val",
        Meaning(note="dataset.root=PATH names the folder that holds train/, val/ and test/"),
    ),
    (
        "csv csv_file csv_path train_csv train_file annotations annotation_file dataframe "
        "labels_csv labels metadata_file parquet table",
        Meaning(("dataset.table",), needs=("dataset=table",)),
    ),
    (
        "val_split val_size validation_split val_ratio val_fraction valid_pct val_pct "
        "validation_size train_val_split",
        Meaning(("dataset.val_fraction",)),
    ),
    (
        "test_size test_split test_ratio test_fraction",
        Meaning(("dataset.test_fraction",), needs=("dataset=folder",)),
    ),
    (
        "image_column image_column_name path_col filename_col filename_column x_col fn_col img_col",
        Meaning(("dataset.path_column",), needs=("dataset=table",)),
    ),
    (
        "label_column_name label_col target_column target_col y_col class_column class_col",
        Meaning(("dataset.label_column",), needs=("dataset=table",)),
    ),
    (
        "split_col fold_column valid_col split_column_name",
        Meaning(("dataset.split_column",), needs=("dataset=table",)),
    ),
    ("data_seed split_random_state", Meaning(("dataset.split_seed",))),
    ("prompt prompts template templates text_prompt", Meaning(("dataset.prompts",))),
    ("download", Meaning(("dataset.download",), values.switch("true", "false"), tasks=("doctor",))),
    (
        "fast_dev_run debug overfit_batches limit_train_batches max_train_samples subset tiny",
        Meaning(
            ("dataset.subset",), lambda value, command: "tiny", note="a small part of the dataset"
        ),
    ),
    (
        "hydra.run.dir output output_dir outdir out out_dir save_dir save_path log_dir logdir "
        "results_dir result_dir default_root_dir logging_dir work_dir paths.output_dir exp_dir "
        "checkpoint_dir ckpt_dir project run_dir",
        Meaning(("runtime.output_root",)),
    ),
    ("hydra.sweep.dir hydra.sweep.subdir multirun_dir", Meaning(("runtime.multirun_root",))),
    ("cache_dir cache cache_path", Meaning(("runtime.cache_root",))),
    (
        "exp_name experiment_name run_name run_id exp expname wandb_name task_name hydra.job.name",
        Meaning(("runtime.run_id",)),
    ),
    (
        "workers num_workers j n_workers dataloader_num_workers nworkers num_data_workers "
        "loader_workers",
        Meaning(("runtime.num_workers",)),
    ),
    ("threads num_threads torch_threads", Meaning(("runtime.threads",))),
    (
        "strategy distributed ddp multiprocessing_distributed local_rank dist_url dist_backend",
        Meaning(note="fgvc trains on several processes by runtime.nproc=N or under torchrun"),
    ),
    ("fp16", Meaning(("precision",), values.switch("fp16", "fp32"))),
    ("bf16", Meaning(("precision",), values.switch("bf16", "fp32"))),
    ("fp32", Meaning(("precision",), values.switch("fp32", "bf16"))),
    ("tf32", Meaning(("matmul_precision",), values.switch("high", "highest"))),
    ("no_cuda use_cpu cpu", Meaning(("runtime.device",), values.switch("cpu", "auto"))),
    ("mps use_mps", Meaning(("runtime.device",), values.switch("mps", "auto"))),
    (
        "grad_checkpointing gradient_checkpointing activation_checkpointing",
        Meaning(("runtime.grad_checkpointing",), values.switch("true", "false")),
    ),
    (
        "compile torch_compile torchcompile compile_model",
        Meaning(("runtime.compile",), values.switch("true", "false")),
    ),
    ("dry_run dryrun", Meaning(("runtime.dry_run",), values.switch("true", "false"))),
    ("save_steps save_freq save_every_n_steps", Meaning(("runtime.save_every",))),
    ("save_total_limit keep_checkpoints checkpoint_hist", Meaning(("runtime.keep_states",))),
    (
        "random_seed manual_seed rng_seed random_state seed_everything global_seed",
        Meaning(("seed",)),
    ),
    (
        "ckpt checkpoint_path ckpt_path checkpoint_file load_from model_path load_checkpoint "
        "eval_checkpoint load from_checkpoint model_file",
        Meaning(("checkpoint",), tasks=("eval", "predict", "export")),
    ),
    (
        "resume resume_from resume_path resume_from_checkpoint resume_ckpt auto_resume",
        Meaning(
            ("runtime.resume",),
            values.path,
            tasks=("train",),
            note="PATH of the run in progress, or its own runtime.run_id",
        ),
    ),
    (
        "initial_checkpoint pretrained_path pretrained_weights init_ckpt weights_path "
        "pretrained_model load_weights init_checkpoint",
        Meaning(("backbone.weights",)),
    ),
    (
        "input source img_path images picture pictures image_path input_path test_image",
        Meaning(("image",), tasks=("predict", "export")),
    ),
    ("topk top_k n_best", Meaning(("task.top_k",))),
    (
        "format output_format results_format",
        Meaning(
            ("task.format",), values.from_table("table", table="table", json="json", csv="csv")
        ),
    ),
    (
        "mean std crop_pct interpolation normalize normalization",
        Meaning(note="preprocess=native uses the backbone's own, preprocess=shared one for all"),
    ),
    (
        "logger log report_to wandb use_wandb tensorboard mlflow wandb_project log_wandb "
        "tracker trackio",
        Meaning(note="every run writes TensorBoard, JSON, HTML and FiftyOne: leave it out"),
    ),
    (
        "deterministic use_deterministic_algorithms cudnn_benchmark benchmark cudnn.benchmark "
        "print_freq log_interval log_every_n_steps log_freq logging_steps eval_freq "
        "check_val_every_n_epoch evaluation_strategy eval_strategy save_strategy save_best "
        "load_best_model_at_end pin_memory pin_mem persistent_workers shuffle drop_last verbose "
        "hydra.verbose callbacks plugins push_to_hub overwrite_output_dir start_epoch "
        "channels_last find_unused_parameters enable_progress_bar progress",
        Meaning(note="fgvc has no such setting: leave it out"),
    ),
    ("hparams_search sweep_config", Meaning(("sweep",), lambda value, command: "tune")),
)
MEANINGS = {word: meaning for words, meaning in ROWS for word in words.split()}
