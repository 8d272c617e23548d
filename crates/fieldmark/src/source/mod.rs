//! The samples of a run: reads files and folders as conversations, triplets and questions. Also the rewards that score
//! answers.

mod conversations;
mod held_out;
mod labels;
mod questions;
mod rewards;
mod triplets;

pub use self::{
    conversations::{ConversationSettings, Conversations},
    held_out::HeldOut,
    questions::{question_files, question_sets},
    rewards::{check_rewards, reward_registry, text_encoder},
    triplets::{LabelSettings, Negatives, TripletSettings, Triplets},
};
