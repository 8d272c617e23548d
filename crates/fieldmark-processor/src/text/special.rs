//! Names of the tokens that Qwen2.5-VL needs, in the order of their ids in the published vocabulary.

/// Ends a document; also pads short rows.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Opens a turn.
pub const IM_START: &str = "<|im_start|>";
/// Ends a turn.
pub const IM_END: &str = "<|im_end|>";
/// Before an image or a video.
pub const VISION_START: &str = "<|vision_start|>";
/// After an image or a video.
pub const VISION_END: &str = "<|vision_end|>";
/// Reserved.
pub const VISION_PAD: &str = "<|vision_pad|>";
/// Stands for one token of an image.
pub const IMAGE_PAD: &str = "<|image_pad|>";
/// Stands for one token of a video.
pub const VIDEO_PAD: &str = "<|video_pad|>";
/// All special tokens.
pub const ALL: [&str; 8] = [END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD];
