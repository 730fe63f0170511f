//! The service account key: RSA with 4096 bits, from a seed, in bearable time.
//!
//! The usual generator throws a new random number for every candidate and sieves only by the smallest primes. Here
//! each prime is the first one after a random start (as OpenSSL does it), found among candidates that a larger sieve
//! left over. Threads take candidates in order and the lowest prime counts, so that their number and their luck do
//! not change the result.

use crate::authority::derive;
use num_bigint_dig::prime::probably_prime;
use num_bigint_dig::{BigUint, RandBigInt};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rsa::RsaPrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const BITS: usize = 4096;
const EXPONENT: u32 = 65_537;
/// How many odd numbers after the start are looked at: so many hold no prime only once in 10^19 searches.
const WINDOW: usize = 32 * 1024;
/// Candidates with a divisor below this never reach the expensive test.
const SIEVE: u32 = 256 * 1024;

/// Returns a private key as PKCS#1 DER, determined by `seed`.
pub(crate) fn generate(seed: [u8; 32]) -> Vec<u8> {
    generate_bits(BITS, seed)
}

fn generate_bits(bits: usize, seed: [u8; 32]) -> Vec<u8> {
    let small = small_primes();
    // One after the other, each with all threads: side by side, the luckier search would wait for the other.
    let [p, q] = ["p", "q"].map(|name| prime(bits / 2, derive(seed, name), &small));
    // The exponent has no inverse when it divides p-1 or q-1: about once in 30000 keys. The same primes are too
    // unlikely to name, and refused too.
    match RsaPrivateKey::from_p_q(p, q, EXPONENT.into()) {
        Ok(key) => key.to_pkcs1_der().expect("a valid key can be written").as_bytes().to_vec(),
        Err(_) => generate_bits(bits, derive(seed, "again")),
    }
}

/// Returns the first prime at or after a number of `bits` bits that `seed` determines.
fn prime(bits: usize, seed: [u8; 32], small: &[u32]) -> BigUint {
    let mut start = StdRng::from_seed(seed).gen_biguint(bits);
    // The two highest bits make the product of two such primes full length.
    for bit in [bits - 1, bits - 2, 0] {
        let mask = BigUint::from(1u8) << bit;
        start |= mask;
    }
    let candidates = sieve(&start, small);
    let next = AtomicUsize::new(0);
    let found = AtomicUsize::new(usize::MAX);
    let threads = thread::available_parallelism().map_or(1, |all| all.get()).min(16);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= candidates.len() || index > found.load(Ordering::Relaxed) {
                        return;
                    }
                    if is_prime(&(&start + BigUint::from(2 * candidates[index]))) {
                        found.fetch_min(index, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    match candidates.get(found.into_inner()) {
        Some(offset) => start + BigUint::from(2 * *offset),
        None => prime(bits, derive(seed, "again"), small),
    }
}

fn is_prime(candidate: &BigUint) -> bool {
    // One exponentiation rules out nearly everything; what remains gets the 4 rounds that FIPS 186-5 asks for at this
    // size, and Lucas.
    let one = BigUint::from(1u8);
    BigUint::from(2u8).modpow(&(candidate - &one), candidate) == one && probably_prime(candidate, 4)
}

/// Returns the `i` for which `start + 2i` has no small divisor.
fn sieve(start: &BigUint, small: &[u32]) -> Vec<usize> {
    let mut composite = vec![false; WINDOW];
    for &prime in small {
        let rest = small_digit(&(start % prime));
        // 2i = -rest (mod prime), and the inverse of 2 is (prime + 1) / 2.
        let first = u64::from((prime - rest) % prime) * u64::from(prime.div_ceil(2)) % u64::from(prime);
        for index in (first as usize..WINDOW).step_by(prime as usize) {
            composite[index] = true;
        }
    }
    (0..WINDOW).filter(|index| !composite[*index]).collect()
}

fn small_digit(number: &BigUint) -> u32 {
    number.to_bytes_le().iter().take(4).rev().fold(0, |digits, byte| digits << 8 | u32::from(*byte))
}

/// Returns the odd primes below the limit of the sieve.
fn small_primes() -> Vec<u32> {
    let mut composite = vec![false; SIEVE as usize];
    let mut primes = Vec::new();
    for number in (3..SIEVE).step_by(2) {
        if composite[number as usize] {
            continue;
        }
        primes.push(number);
        for multiple in (number as usize * number as usize..SIEVE as usize).step_by(number as usize) {
            composite[multiple] = true;
        }
    }
    primes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsa::pkcs1::DecodeRsaPrivateKey;
    use rsa::traits::PublicKeyParts;

    #[test]
    fn a_key_is_valid_full_length_and_determined_by_its_seed() {
        let der = generate_bits(1024, [3; 32]);
        let key = RsaPrivateKey::from_pkcs1_der(&der).unwrap();
        key.validate().unwrap();
        assert_eq!(key.n().bits(), 1024);
        assert_eq!(der, generate_bits(1024, [3; 32]));
        assert_ne!(der, generate_bits(1024, [4; 32]));
    }

    #[test]
    fn the_sieve_keeps_every_prime() {
        let small = small_primes();
        assert_eq!(&small[..5], [3, 5, 7, 11, 13]);
        let start = BigUint::from(1u64 << 40 | 1);
        let kept = sieve(&start, &small);
        let prime = |i: &usize| probably_prime(&(&start + BigUint::from(2 * i)), 20);
        let primes: Vec<usize> = (0..2000).filter(prime).collect();
        assert!(primes.len() > 100 && primes.iter().all(|index| kept.contains(index)));
    }
}
