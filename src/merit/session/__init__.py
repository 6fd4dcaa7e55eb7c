"""Both ends of the streams that workers and clients open, without any input or output: frames in, frames out."""
