// Questions that the model that ships with the server can answer.
export const kExamples = [
  ['Three parts', 'Compute gcd(221, 143), 84*23 and gcd(270, 192). Think step by step and in parallel before answering.'],
  ['Six products', 'Work out 562 times 43, 35 times 36, 588 times 89, 388 times 83, 6167 times 78 and 80 times 519. Which result is the largest?'],
  ['Groups within groups', 'Group A: lpf(121), lpf(140); group B: gcd(78,624), gcd(128,712); group C: value EQZAWZOXEVEXU, value EZACUQLUDE. Find the largest value of each group. What is the sum of the results?'],
  ['One thing, no paths', 'What is 1881 + 25 + 217? Think step by step before answering.'],
];
