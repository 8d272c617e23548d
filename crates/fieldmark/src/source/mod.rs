//! The samples of a run: reads files and folders as conversations, triplets and questions. Also the rewards that score
//! answers.

mod conversations;
mod held_out;
mod labels;
mod large;
mod photo;
mod questions;
mod rewards;
mod triplets;
mod unseen;

pub use self::{
    conversations::{ConversationSettings, Conversations},
    held_out::HeldOut,
    large::large_note,
    photo::{open as open_image, open_named as open_named_image},
    questions::{question_files, question_sets, unused_aliases},
    rewards::{check_rewards, reward_registry, text_encoder, too_long},
    triplets::{LabelSettings, Negatives, TripletSettings, Triplets},
    unseen::{held_out_classes, held_out_note, unseen},
};
