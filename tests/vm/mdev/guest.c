/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guest - a guest without an operating system that has an mtty device, a PCI serial card, as its only purpose: drives it as a
 * serial driver would, says something to it again and again, waits for its interrupt, reads back what the device has got (it
 * keeps what is written to be read), and reports on the first serial port how often that was the same.
 *
 * Where an emulator is emulated itself, a distribution's kernel takes ten minutes to boot and the smallest Linux one minute;
 * this takes as long as its firmware. Started as a multiboot kernel: 32 bits, flat segments, interrupts off. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONSOLE 0x3f8
#define CARD_ID 0x32534348u /* device 0x3253 of vendor 0x4348: what mtty says it is */

/* Registers of a 16550, from its base. */
enum { UART_DATA = 0, UART_IER = 1, UART_IIR = 2, UART_FCR = 2, UART_LCR = 3, UART_MCR = 4, UART_LSR = 5 };
#define IER_RECEIVED 0x01
#define FCR_CLEAR    0x07 /* with FIFOs; an interrupt with the first byte */
#define LCR_8N1      0x03
#define MCR_ON       0x0b /* DTR, RTS, and OUT2, without which a PC's port has no interrupt */
#define LSR_READY    0x01
#define LSR_EMPTY    0x20
#define IIR_NONE     0x01

#define PIC1        0x20
#define PIC2        0xa0
#define PIC_VECTORS 32
#define PAUSE_TICKS 5 /* of 55 ms, as the firmware leaves the timer */

#define MULTIBOOT_MAGIC 0x1badb002u

__attribute__((used)) static const uint32_t multiboot[] = { MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC };

static inline void out8(uint16_t port, uint8_t value) {
        __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in8(uint16_t port) {
        uint8_t value;

        __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
        return value;
}

static inline void out32(uint16_t port, uint32_t value) {
        __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint32_t in32(uint16_t port) {
        uint32_t value;

        __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
        return value;
}

/* ---- console ---- */

static void say(const char *text) {
        for (; *text; text++) {
                while (!(in8(CONSOLE + UART_LSR) & LSR_EMPTY))
                        ;
                out8(CONSOLE, (uint8_t) *text);
        }
}

/* Six digits. */
static void put_number(char *to, unsigned n) {
        for (int i = 5; i >= 0; i--, n /= 10)
                to[i] = (char) ('0' + n % 10);
}

static void say_number(const char *before, unsigned n, const char *after) {
        char digits[7] = "";

        put_number(digits, n);
        say(before);
        say(digits);
        say(after);
}

__attribute__((noreturn)) static void end(const char *why) {
        say("guest: ");
        say(why);
        say("\n");
        for (;;)
                __asm__ volatile("cli; hlt");
}

/* ---- interrupts ---- */

typedef struct __attribute__((packed)) Table {
        uint16_t limit;
        const void *base;
} Table;

static const uint64_t segments[] = { 0, 0x00cf9a000000ffff,
                                     0x00cf92000000ffff }; /* code and data: all 4 GiB */
static uint64_t gates[PIC_VECTORS + 16];
static volatile unsigned ticks, interrupts;
static uint16_t card;
static uint8_t card_irq;

extern char interrupt_first[], interrupt_second[];

/* The card's, if it is one that it has asked for. */
__attribute__((used)) static void on_second(void) {
        if (in8((uint16_t) (card + UART_IIR)) != IIR_NONE)
                interrupts++;
}

__attribute__((used)) static void on_first(void) {
        uint8_t serviced;

        out8(PIC1, 0x0b); /* what is in service is to be read */
        serviced = in8(PIC1);
        if (serviced & 1)
                ticks++;
        else if (card_irq < 8 && serviced & 1 << card_irq)
                on_second();
}

__asm__("interrupt_second: pusha; cld; call on_second; mov $0x20, %al; out %al, $0xa0; out %al, $0x20; popa; iret\n"
        "interrupt_first: pusha; cld; call on_first; mov $0x20, %al; out %al, $0x20; popa; iret\n"
        ".globl _start\n"
        "_start: mov $stack + 16384, %esp; call run\n");

__attribute__((used)) static char stack[16384];

static void interrupts_begin(void) {
        static const uint8_t first[] = { 0x11, PIC_VECTORS, 4, 1 },
                             second[] = { 0x11, PIC_VECTORS + 8, 2, 1 };
        const Table gdt = { sizeof segments - 1, segments }, idt = { sizeof gates - 1, gates };

        for (unsigned i = 0; i < 16; i++) {
                uint32_t handler = (uint32_t) (uintptr_t) (i < 8 ? interrupt_first : interrupt_second);

                gates[PIC_VECTORS + i] =
                        (uint64_t) (handler & 0xffff0000) << 32 | 0x8e0000080000 | (handler & 0xffff);
        }
        __asm__ volatile("lgdt %0; lidt %1; ljmp $8, $1f; 1: mov %2, %%ds; mov %2, %%es; mov %2, %%ss"
                         :
                         : "m"(gdt), "m"(idt), "r"(16)
                         : "memory");
        for (unsigned i = 0; i < sizeof first; i++) {
                out8((uint16_t) (PIC1 + (i > 0)), first[i]);
                out8((uint16_t) (PIC2 + (i > 0)), second[i]);
        }
        /* the timer, the second controller, and the card */
        out8(PIC1 + 1, (uint8_t) ~(1 | 4 | (card_irq < 8 ? 1 << card_irq : 0)));
        out8(PIC2 + 1, (uint8_t) ~(card_irq < 8 ? 0 : 1 << (card_irq - 8)));
        __asm__ volatile("sti");
}

/* Until the next interrupt, unless *@what is not @before any more. */
static void wait(const volatile unsigned *what, unsigned before) {
        __asm__ volatile("cli" : : : "memory");
        if (*what == before)
                __asm__ volatile("sti; hlt" : : : "memory");
        else
                __asm__ volatile("sti" : : : "memory");
}

/* ---- the card ---- */

static uint32_t config_address(unsigned slot, unsigned offset) {
        return 0x80000000u | slot << 11 | offset;
}

static uint32_t config_read(unsigned slot, unsigned offset) {
        out32(0xcf8, config_address(slot, offset));
        return in32(0xcfc);
}

static void card_find(void) {
        unsigned slot = 0;
        uint32_t bar;

        while (slot < 32 && config_read(slot, 0) != CARD_ID)
                slot++;
        if (slot == 32)
                end("there is no card");
        bar = config_read(slot, 0x10);
        if ((bar & 3) != 1 || (bar & ~3u) == 0 || bar > 0xffff)
                end("the card has no ports");
        card_irq = config_read(slot, 0x3c) & 0xff;
        if (card_irq == 0 || card_irq > 15)
                end("the card has no interrupt");
        out32(0xcf8, config_address(slot, 4));
        out32(0xcfc, config_read(slot, 4) | 1);
        card = (uint16_t) (bar & ~3u);
}

static void card_begin(void) {
        out8((uint16_t) (card + UART_IER), 0);
        out8((uint16_t) (card + UART_LCR), LCR_8N1);
        out8((uint16_t) (card + UART_FCR), FCR_CLEAR);
        out8((uint16_t) (card + UART_MCR), MCR_ON);
        interrupts_begin();
        out8((uint16_t) (card + UART_IER), IER_RECEIVED);
}

/* Says @n to the device, and hears what that has got. */
static void talk(unsigned n) {
        char said[] = "number 000000", heard[sizeof said];
        unsigned before = interrupts;

        put_number(said + 7, n);
        while (!(in8((uint16_t) (card + UART_LSR)) & LSR_EMPTY))
                ;
        for (size_t i = 0; i < sizeof said; i++) /* fewer than its FIFO holds */
                out8((uint16_t) (card + UART_DATA), (uint8_t) said[i]);
        while (interrupts == before)
                wait(&interrupts, before);
        for (size_t i = 0; i < sizeof said; i++) {
                if (!(in8((uint16_t) (card + UART_LSR)) & LSR_READY))
                        end("the device has less than was said");
                heard[i] = (char) in8((uint16_t) (card + UART_DATA));
                if (heard[i] != said[i])
                        end("the device has something else");
        }
}

__attribute__((used, noreturn)) static void run(void) {
        out8(CONSOLE + UART_LCR, LCR_8N1);
        say("guest: begins\n");
        card_find();
        card_begin();
        say_number("guest: has the card, interrupt ", card_irq, "\n");
        for (unsigned n = 1;; n++) {
                unsigned until = ticks + PAUSE_TICKS;

                talk(n);
                say_number("guest: heard ", n, "");
                say_number(" after interrupts: ", interrupts, "\n");
                while ((int) (until - ticks) > 0)
                        wait(&ticks, ticks);
        }
}
