"""Worked steps that the tiny model learns: every line follows from what stands just before it.

A model of 10 M parameters is exact only where each token needs one table fact and a short look back. So numbers are taken apart digit by
digit, the digits still to do stand in front of a "|", carries are written out, and the result so far is repeated after a ">".
Every function returns (lines, result).
"""

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23)


def times_digit(number, digit, add=0):
    """number * digit + add, from the right: `rest|digit*digit+carry=value>result so far`."""
    lines = [f"{number}*{digit}" + (f"+{add}" if add else "")]
    rest, done, carry = str(number), "", add
    while rest:
        rest, last = rest[:-1], rest[-1]
        value = int(last) * digit + carry
        done = (str(value % 10) if rest else str(value)) + done
        lines.append(f"{rest}|{last}*{digit}+{carry}={value}>{done}")
        carry = value // 10
    return lines, int(done)


def plus(a, b):
    """a + b by columns from the right; the shorter number is filled up with zeros as its digits run out."""
    lines = [f"{a}+{b}"]
    left, right, done, carry = str(a), str(b), "", 0
    while left or right:
        left, x = left[:-1], left[-1:] or "0"
        right, y = right[:-1], right[-1:] or "0"
        value = int(x) + int(y) + carry
        done = (str(value % 10) if left or right else str(value)) + done
        lines.append(f"{left}|{x}+{right}|{y}+{carry}={value}>{done}")
        carry = value // 10
    return lines, int(done)


def times(a, b):
    """Long multiplication: one row for each digit of b that isn't zero, shifted and added up."""
    lines, total = [], None
    for shift, digit in enumerate(reversed(str(b))):
        if digit == "0":
            continue
        row_lines, row = times_digit(a, int(digit))
        lines += row_lines
        row *= 10**shift
        if total is None:
            total = row
        else:
            sum_lines, total = plus(total, row)
            lines += sum_lines
    return lines, total


def short_division(number, divisor):
    """One line, from the left: `number/divisor:value>quotient digit r remainder,…=quotient r remainder`."""
    remainder, digits, parts = 0, "", []
    for digit in str(number):
        value = remainder * 10 + int(digit)
        quotient, remainder = divmod(value, divisor)
        digits += str(quotient)
        parts.append(f"{value}>{quotient}r{remainder}")
    return f"{number}/{divisor}:{','.join(parts)}={int(digits)}r{remainder}", int(digits), remainder


def gcd(a, b):
    """Euclid's algorithm by subtraction: differences of short numbers are easier than quotients."""
    a, b = max(a, b), min(a, b)
    lines = []
    while b:
        lines.append(f"{a}-{b}={a - b}")
        a, b = max(b, a - b), min(b, a - b)
    return lines, a


def largest_prime_factor(number):
    """Trial division; the square of the divisor says when to stop."""
    lines, candidates = [], iter(PRIMES)
    prime = next(candidates)
    while prime * prime <= number:
        lines.append(f"{prime}*{prime}={prime * prime}<={number}")
        line, quotient, remainder = short_division(number, prime)
        lines.append(line)
        if remainder:
            prime = next(candidates)
        else:
            number = quotient
    lines.append(f"{prime}*{prime}={prime * prime}>{number}")
    return lines, number


def to_base(number, base):
    """Repeated division; each remainder goes in front of the digits so far."""
    lines, digits = [], ""
    while number:
        line, number, remainder = short_division(number, base)
        digits = str(remainder) + digits
        lines.append(f"{line}>{digits}")
    return lines, digits


def collatz(number):
    """Steps until 1; `#` counts them."""
    lines, count = [], 0
    while number != 1:
        count += 1
        if number % 2:
            lines.append(f"{number}+{number}={2 * number},{2 * number}+{number}={3 * number},+1={3 * number + 1} #{count}")
            number = 3 * number + 1
        else:
            lines.append(f"{number}/2={number // 2} #{count}")
            number //= 2
    return lines, count


def power_mod(base, exponent, modulus):
    """Repeated squaring: the exponent's bits first, then a square for each bit and a product for each one."""
    lines, bits, rest = [], "", exponent
    while rest:
        bits = str(rest % 2) + bits
        lines.append(f"{rest}=2*{rest // 2}+{rest % 2}>{bits}")
        rest //= 2
    result = 1
    while bits:
        bit, bits = bits[0], bits[1:]
        line = f"{bit}|{bits}:"
        for factor in (result, base)[: 1 + int(bit)]:
            product = result * factor
            line += f"{',' if line[-1] != ':' else ''}{result}*{factor}={product}-{product // modulus * modulus}={product % modulus}"
            result = product % modulus
        lines.append(line)
    return lines, result


def column_sum(numbers):
    lines, total = [",".join(map(str, numbers))], numbers[0]
    for number in numbers[1:]:
        step, total = plus(total, number)
        lines += step
    return lines, total


def median(numbers):
    """Insertion sort of an odd count of numbers, then the one in the middle."""
    lines, done = [",".join(map(str, numbers))], []
    for number in numbers:
        done = sorted([*done, number])
        lines.append(f"{number}:{','.join(map(str, done))}")
    return lines, done[len(done) // 2]


def count_letter(letter, word):
    parts, count = [], 0
    for x in word:
        count += x == letter
        parts.append(f"{x}{count}")
    return [",".join(parts)], count


def word_value(word):
    """A=1, B=2, … Z=26, added up."""
    parts, total = [], 0
    for x in word:
        total += ord(x) - 64
        parts.append(f"{x}{ord(x) - 64}={total}")
    return [",".join(parts)], total


def horner(coefficients, x):
    lines, value = [",".join(map(str, coefficients))], coefficients[0]
    for coefficient in coefficients[1:]:
        step, value = times_digit(value, x, coefficient)
        lines += step
    return lines, value
