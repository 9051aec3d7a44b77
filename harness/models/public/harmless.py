"""Fields of a published config.json that change no forward pass here, each group with its reason.

Whatever is neither read by a family (`harness.models.public.families`) nor named here is refused. A field that is
harmless at some of its values only is read there, and not listed.
"""

_NAMES_OF_CODE = frozenset(
    {"architectures", "auto_map", "_name_or_path", "transformers_version", "_commit_hash", "dtype", "torch_dtype"}
)
"""Who wrote the file, and with what; the loader's code and the dtype of the run are named elsewhere."""

_OUTPUTS = frozenset(
    {
        *("use_cache", "return_dict", "output_attentions", "output_hidden_states", "output_router_logits"),
        *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "torchscript"),
        *("flash_attention", "chunk_size_feed_forward", "gradient_checkpointing", "tie_encoder_decoder"),
    }
)
"""What is kept, returned or held in memory, and by which kernel: the numbers are the same."""

_TRAINING = frozenset(
    {
        *("attention_dropout", "embedding_dropout", "residual_dropout", "output_dropout", "hidden_dropout"),
        *("initializer_range", "router_aux_loss", "router_aux_loss_coef", "fuse_cross_entropy"),
    }
)
"""Dropout, first weights and losses: training alone has them."""

_TOKEN_IDS = frozenset({"bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id"})
"""Read where the loader asks for them; no layer does. What ends an answer is `model.stop_tokens`."""

BLOCK_LENGTHS = ("bd_size", "block_size", "block_length")
"""Names of the block length: no layer reads it; the loader compares it with `model.block_length`."""

_SAMPLING = frozenset(
    {
        *("do_sample", "temperature", "top_k", "top_p", "max_length", "max_new_tokens", "min_length", "num_beams"),
        *("num_return_sequences", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "typical_p"),
    }
)
"""Defaults of a sampler; here the method says how to decode."""

_LABELS = frozenset({"id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params"})
"""Heads of classifiers, which these models have not."""

_COMMON = _NAMES_OF_CODE | _OUTPUTS | _TRAINING | _TOKEN_IDS | {*BLOCK_LENGTHS} | _SAMPLING | _LABELS

OFF = ("is_encoder_decoder", "is_decoder", "add_cross_attention")
"""Switches of transformers' own, which must be off in every family."""

LLADA = _COMMON | {
    *("init_device", "init_fn", "init_std", "init_cutoff_factor", "precision"),  # training
    *("alibi_bias_max", "attention_layer_norm_with_affine"),  # parts of what must be off: alibi, attention_layer_norm
}

QWEN = _COMMON | {"sliding_window", "max_window_layers"}  # parts of what must be off: use_sliding_window

LLAMA = _COMMON | {
    *("is_llama_config", "transformers.js_config"),  # what other readers of the file are told
}

LLADA_MOE = QWEN | {
    "norm_topk_prob",  # the family's code keeps the weights of the chosen experts whatever it says
    "intermediate_size",  # the family's code reads dense_intermediate_size and expert_intermediate_size
}

LLADA2 = QWEN | {
    "norm_topk_prob",  # the family's code divides where several experts are chosen, whatever it says
    *("rotary_dim", "moe_shared_expert_intermediate_size"),  # its code multiplies other fields instead
}

ASSISTANT = _COMMON | {"vocab_size", "tie_word_embeddings"}  # its target has the embeddings and the head
