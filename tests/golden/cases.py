"""Tiny config.json files of every family, in which every feature of it is turned on somewhere."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "max_position_embeddings": 32,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
}
"""What Llama and its relatives have in common."""

CASES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 61,
        "n_positions": 32,
        "n_embd": 24,
        "n_layer": 3,
        "n_head": 4,
    },
    "gpt2-relu-untied": {
        "model_type": "gpt2",
        "vocab_size": 61,
        "n_positions": 32,
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 3,
        "n_inner": 40,
        "activation_function": "relu",
        "layer_norm_epsilon": 1e-3,
        "tie_word_embeddings": False,
    },
    "llama": {
        "model_type": "llama",
        "vocab_size": 61,
        "max_position_embeddings": 32,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 40,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    },
    "llama-untied": {
        "model_type": "llama",
        "vocab_size": 61,
        "max_position_embeddings": 32,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "tie_word_embeddings": False,
    },
    "qwen2": {
        "model_type": "qwen2",
        "vocab_size": 61,
        "max_position_embeddings": 32,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 40,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    },
    "llama-linear": {
        **SMALL,
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "rope_scaling": {"rope_type": "linear", "factor": 3.0},
    },
    "llama-llama3": {
        **SMALL,
        "model_type": "llama",
        "head_dim": 16,
        "rope_theta": 50.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 3.0,
            "original_max_position_embeddings": 16,
        },
    },
    "llama-yarn": {
        **SMALL,
        "model_type": "llama",
        "head_dim": 16,
        "rope_theta": 50.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "beta_fast": 2.0,
            "beta_slow": 0.5,
            "original_max_position_embeddings": 16,
        },
    },
    "llama-dynamic": {
        **SMALL,
        "model_type": "llama",
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0},
    },
    "qwen2-windows": {
        **SMALL,
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
    },
    "qwen3": {
        **SMALL,
        "model_type": "qwen3",
        "head_dim": 10,
        "attention_bias": True,
        "rope_theta": 1_000_000.0,
    },
}
