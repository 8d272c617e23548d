//! What a reader should know about the files of a checkpoint folder.

/// What a reader should know about the files of a processor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What is used that the folder does not have, such as the chat template of Qwen2.5-VL.
    pub notes: Vec<String>,
    /// Files that contradict each other, and which of them counts.
    pub contradictions: Vec<String>,
}
