//! Where the samples of a run come from: files and folders made into conversations, triplets and questions, and the rewards
//! by which answers are judged.

mod conversations;
mod held_out;
mod labels;
mod questions;
mod rewards;
mod triplets;

pub use self::{
    conversations::{ConversationSettings, Conversations},
    held_out::HeldOut,
    questions::question_sets,
    rewards::{check_rewards, reward_registry, text_encoder},
    triplets::{LabelSettings, Negatives, TripletSettings, Triplets},
};
