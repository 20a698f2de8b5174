"""Traces of real models: PyTorch modules, ONNX graphs, safetensors files, Hugging Face configs.

What they need beyond the core is an extra (``pip install 'accsim[torch]'``), imported when called.
"""
