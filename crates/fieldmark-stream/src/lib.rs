//! Named random streams: one seed for a run, any number of independent generators. A stream is ChaCha8 keyed with the
//! SHA-256 of the seed and a path of words and numbers, such as ("rollout", step, prompt, role, index). New or
//! reordered work never changes the random numbers of other parts. Values are the same everywhere.

use std::convert::Infallible;

use rand::{Rng, SeedableRng, TryRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The name of a stream: the seed of a run and a path of words and numbers.
///
/// Keys are cheap to clone and to extend. Different paths give independent streams: a word and a number never collide,
/// nor do `("ab", "c")` and `("a", "bc")`, because each part is hashed with its kind and length.
///
/// ```
/// use fieldmark_stream::StreamKey;
/// let run = StreamKey::new(42);
/// let mut rollout = run.word("rollout").number(3).word("anchor").number(0).stream();
/// let value = rollout.uniform();
/// assert!((0.0..1.0).contains(&value));
/// ```
#[derive(Clone, Debug)]
pub struct StreamKey {
    hash: Sha256,
}

impl StreamKey {
    /// Creates the root of all streams of a run.
    pub fn new(seed: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"fieldmark stream 1");
        hash.update(seed.to_le_bytes());
        Self { hash }
    }

    /// Returns this key with a word appended.
    pub fn word(&self, word: &str) -> Self {
        let mut hash = self.hash.clone();
        hash.update(b"w");
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word.as_bytes());
        Self { hash }
    }

    /// Returns this key with a number appended.
    pub fn number(&self, number: u64) -> Self {
        let mut hash = self.hash.clone();
        hash.update(b"n");
        hash.update(number.to_le_bytes());
        Self { hash }
    }

    /// Creates the generator with this name, at its start.
    pub fn stream(&self) -> RandomStream {
        let key: [u8; 32] = self.hash.clone().finalize().into();
        RandomStream { rng: ChaCha8Rng::from_seed(key) }
    }
}

/// A random generator. It belongs to the sequence, row or epoch that it is named after.
///
/// Its own methods use 64-bit draws only, so their values depend neither on the platform's word size nor on the version
/// of `rand`. It is also a `rand` generator (`TryRng`, hence `Rng`), for the distributions of other crates.
#[derive(Clone, Debug)]
pub struct RandomStream {
    rng: ChaCha8Rng,
}

impl RandomStream {
    /// Creates the stream named by `seed` and a path of words. Short for the [`StreamKey`] builder.
    pub fn new(seed: u64, path: &[&str]) -> Self {
        path.iter().fold(StreamKey::new(seed), |key, word| key.word(word)).stream()
    }

    /// Draws a number in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Draws a number in [`low`, `high`); returns `low` if the range is empty.
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Draws an index in 0..`count`, each equally likely (Lemire's method with rejection); returns 0 if `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        let count = count as u64;
        if count == 0 {
            return 0;
        }
        let threshold = count.wrapping_neg() % count;
        loop {
            let product = u128::from(self.rng.next_u64()) * u128::from(count);
            if (product as u64) >= threshold {
                return (product >> 64) as usize;
            }
        }
    }

    /// Draws an element of `items`; returns `None` if there is none.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            return None;
        }
        let index = self.below(items.len());
        items.get(index)
    }

    /// Shuffles `items` in place (Fisher and Yates, from the last element down); each order is equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

impl TryRng for RandomStream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.rng.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.rng.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.rng.fill_bytes(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(mut stream: RandomStream) -> [u64; 3] {
        std::array::from_fn(|_| stream.next_u64())
    }

    #[test]
    fn the_key_is_sha256_of_the_tagged_path() {
        let mut bytes = b"fieldmark stream 1".to_vec();
        bytes.extend(7u64.to_le_bytes());
        bytes.extend(b"w");
        bytes.extend(5u64.to_le_bytes());
        bytes.extend(b"order");
        bytes.extend(b"n");
        bytes.extend(9u64.to_le_bytes());
        let key: [u8; 32] = Sha256::digest(&bytes).into();
        let mut expected = ChaCha8Rng::from_seed(key);
        let expected: [u64; 3] = std::array::from_fn(|_| expected.next_u64());
        assert_eq!(draw(StreamKey::new(7).word("order").number(9).stream()), expected);
    }

    // Both from a second ChaCha8, written in another language after RFC 8439 with 8 rounds and a 64-bit counter.
    const GOLDEN_ROLLOUT_ANCHOR: [u64; 3] =
        [10_387_798_568_348_695_501, 11_648_628_372_797_244_784, 15_878_878_413_395_353_122];
    const GOLDEN_ORDER: [usize; 10] = [4, 5, 9, 0, 1, 2, 3, 7, 6, 8];

    #[test]
    fn values_never_change() {
        let mut stream = RandomStream::new(42, &["rollout", "anchor"]);
        assert_eq!(std::array::from_fn(|_| stream.next_u64()), GOLDEN_ROLLOUT_ANCHOR);
        let mut order: Vec<usize> = (0..10).collect();
        RandomStream::new(1, &["order"]).shuffle(&mut order);
        assert_eq!(order, GOLDEN_ORDER);
    }

    #[test]
    fn different_names_are_different_streams() {
        let run = StreamKey::new(0);
        let keys = [
            run.clone(),
            StreamKey::new(1),
            run.word("ab").word("c"),
            run.word("a").word("bc"),
            run.word("abc"),
            run.number(1),
            run.word("1"),
            run.word("a").number(1),
            run.number(1).word("a"),
        ];
        let mut seen: Vec<[u64; 3]> = keys.iter().map(|key| draw(key.stream())).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), keys.len());
        assert_eq!(draw(run.word("ab").stream()), draw(RandomStream::new(0, &["ab"])));
    }

    #[test]
    fn neighbouring_streams_are_uncorrelated() {
        let pairs = 20_000;
        let mut sum = 0.0;
        for index in 0..pairs {
            let a = StreamKey::new(3).number(index).stream().uniform();
            let b = StreamKey::new(3).number(index + 1).stream().uniform();
            sum += (a - 0.5) * (b - 0.5) * 12.0;
        }
        // The mean of such products has a standard deviation of 1/sqrt(pairs) = 0.0071.
        assert!((sum / pairs as f64).abs() < 0.03, "{}", sum / pairs as f64);
    }

    #[test]
    fn indices_and_orders_are_uniform() {
        let mut stream = RandomStream::new(5, &["uniform"]);
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            counts[stream.below(7)] += 1;
        }
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 500), "{counts:?}");
        let mut orders = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            let mut order = [0, 1, 2, 3];
            stream.shuffle(&mut order);
            *orders.entry(order).or_insert(0usize) += 1;
        }
        assert_eq!(orders.len(), 24);
        assert!(orders.values().all(|&count| count.abs_diff(1000) < 200), "{orders:?}");
    }

    #[test]
    fn edges_do_not_panic() {
        let mut stream = RandomStream::new(0, &[]);
        assert_eq!(stream.below(0), 0);
        assert_eq!(stream.below(1), 0);
        assert_eq!(stream.choose::<u8>(&[]), None);
        stream.shuffle::<u8>(&mut []);
    }
}
